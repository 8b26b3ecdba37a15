"""Where scans come from: public datasets and layouts of users' folders.

To add one, write a module with a :class:`Source` and list it here.
"""

from pathlib import Path

from pyro_stitchnet.data.sources.base import Archive, Scan, Source
from pyro_stitchnet.data.sources.ccii import CCII
from pyro_stitchnet.data.sources.folder import FOLDER
from pyro_stitchnet.data.sources.medseg import MEDSEG
from pyro_stitchnet.data.sources.mosmed import MOSMED
from pyro_stitchnet.data.sources.nnunet import NNUNET
from pyro_stitchnet.data.sources.paths import PICTURES
from pyro_stitchnet.data.sources.plain import PLAIN
from pyro_stitchnet.data.sources.zenodo import ZENODO

__all__ = ["SOURCES", "Archive", "Scan", "Source", "detect"]

SOURCES = {source.name: source for source in (NNUNET, CCII, ZENODO, MOSMED, MEDSEG, FOLDER, PLAIN)}
"""Sources by name. Of two that a folder may be, :func:`detect` takes the first."""


def detect(folder: str | Path) -> Source:
    """The source whose layout a folder has, told by its landmarks alone.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is empty, or has no known layout; the message lists them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if not any(folder.iterdir()):  # an error where it may not be read, which glob passes over
        raise ValueError(f"{folder}: is empty; give the folder that the scans lie in")
    for source in SOURCES.values():
        if any(any(folder.glob(mark)) for mark in source.landmarks):
            return source
    bare = (path for path in folder.rglob("*") if path.suffix.lower() in (".npy", *PICTURES))
    if one := next(bare, None):
        raise ValueError(
            f"{one}: NumPy arrays and pictures are read in the layout 'folder' only, since they "
            f"do not say whose they are; move them into {folder / 'images'} and list them in "
            f"{folder / 'index.csv'}, under the columns file and patient"
        )
    layouts = "\n".join(f"  {source.name}: {source.layout}" for source in SOURCES.values())
    raise ValueError(
        f"{folder}: has none of the known layouts; arrange it like one of these, or name the one "
        f"it has if its files have other endings:\n{layouts}"
    )
