"""Sources of scans: public datasets, and layouts of users' folders.

To add a source, write a module with a :class:`Source` and list it here.
"""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS
from pyro_stitchnet.data.sources.base import Archive, ScanFiles, Source
from pyro_stitchnet.data.sources.ccii import CCII
from pyro_stitchnet.data.sources.folder import FOLDER
from pyro_stitchnet.data.sources.medseg import MEDSEG
from pyro_stitchnet.data.sources.mosmed import MOSMED
from pyro_stitchnet.data.sources.nnunet import NNUNET
from pyro_stitchnet.data.sources.paths import walk
from pyro_stitchnet.data.sources.plain import PLAIN
from pyro_stitchnet.data.sources.zenodo import ZENODO

__all__ = ["SOURCES", "Archive", "ScanFiles", "Source", "detect"]

SOURCES = {source.name: source for source in (NNUNET, CCII, ZENODO, MOSMED, MEDSEG, FOLDER, PLAIN)}
"""Sources by name. Where the layouts of several match, :func:`detect` returns the first."""


def detect(folder: str | Path) -> Source:
    """Detect the source of a folder by the landmarks of its layout.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is empty, a prepared dataset, or has no known layout; the message lists the
            known ones.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if (folder / "dataset.json").exists() and (folder / "shards").is_dir():
        raise ValueError(f"{folder}: is a prepared dataset; give it to `stitchnet train`")
    if not any(folder.iterdir()):  # raises where glob would silently find nothing
        raise ValueError(f"{folder}: is empty; give the folder that holds the scans")
    for source in SOURCES.values():
        if any(any(folder.glob(mark)) for mark in source.landmarks if "**" not in mark):
            return source
        # A glob does not follow links to folders.
        deep = [mark.removeprefix("**/") for mark in source.landmarks if "**" in mark]
        if deep and any(
            fnmatch(path.name.lower(), mark) for path in _files(folder) for mark in deep
        ):
            return source
    bare = (path for path in _files(folder) if path.suffix.lower() in (".npy", *IMAGE_ENDINGS))
    if one := next(bare, None):
        raise ValueError(
            f"{one}: NumPy arrays and images are read in the layout 'folder' only, since they do "
            f"not name their patient; move them into {folder / 'images'} and list them in "
            f"{folder / 'index.csv'}, with the columns file and patient"
        )
    layouts = "\n".join(f"  {source.name}: {source.layout}" for source in SOURCES.values())
    raise ValueError(
        f"{folder}: has none of the known layouts; arrange it like one of these, or name its "
        f"layout (FOLDER@NAME) if its files have other endings:\n{layouts}"
    )


def _files(folder: Path) -> Iterator[Path]:
    return (place / name for place, _, names in walk(folder) for name in names)
