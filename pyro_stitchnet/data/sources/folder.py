"""The package's own layout: a folder of images, masks and an index."""

from collections.abc import Iterator
from pathlib import Path

from pyro_stitchnet.data.sources._table import read_table
from pyro_stitchnet.data.sources.base import ScanFiles, Source
from pyro_stitchnet.labels import LABEL_RULES

__all__ = ["FOLDER"]


def _find(folder: Path) -> Iterator[ScanFiles]:
    index = read_table(folder / "index.csv", ("file", "patient"))
    _refuse_unpaired(folder / "masks", set(index["file"]))
    studies = index["study"] if "study" in index else [""] * len(index)
    for file, patient, study in zip(index["file"], index["patient"], studies, strict=True):
        image = folder / "images" / file
        if not image.exists():
            raise FileNotFoundError(f"{image}: missing, though index.csv lists it")
        mask = folder / "masks" / file
        yield ScanFiles(
            name=file,
            patient=patient,
            image=image,
            mask=mask if mask.exists() else None,  # raises where access is denied
            study=study,
        )


def _refuse_unpaired(root: Path, listed: set[str]) -> None:
    """Refuse a mask without an image: it is misnamed, and its image would count as unlabelled."""
    masks = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    if unpaired := sorted(masks - listed):
        raise FileNotFoundError(
            f"{root / unpaired[0]}: is the mask of no file in index.csv; name it like its image"
        )


FOLDER = Source(
    name="folder",
    title="images, masks and an index of your own",
    layout=(
        "index.csv (file, patient[, study]), images/a.png, and masks/a.png where labelled; "
        "image files, volumes or NumPy arrays (.npy), one for each row"
    ),
    landmarks=("index.csv",),
    rule=LABEL_RULES["full"],
    find=_find,
    caution=(
        "Masks are read by the rule 'full' (0 background, 1 healthy lung, 2 ground glass, "
        "3 consolidation) unless another rule is named; a mask of another rule may look valid."
    ),
)
"""The package's own layout: an index, images and masks."""
