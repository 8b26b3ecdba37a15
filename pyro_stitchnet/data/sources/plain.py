"""A user's bare folder of scans, none of them labelled."""

import os
from collections.abc import Iterator
from pathlib import Path

from pyro_stitchnet.data.sources._paths import MEDICAL, natural, stem
from pyro_stitchnet.data.sources.base import Scan, Source

__all__ = ["PLAIN"]


def _find(folder: Path) -> Iterator[Scan]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    for image in sorted(_images(folder), key=lambda path: natural(path.as_posix())):
        itself = image == folder  # a DICOM series
        name = Path(folder.resolve().name) if itself else image.relative_to(folder)
        if not image.is_dir():  # a folder called by a DICOM UID has dots, but no ending
            name = name.with_name(stem(image))
        yield Scan(name=name.as_posix(), patient=name.parts[0], image=image)


def _images(folder: Path) -> Iterator[Path]:
    """Every volume, and every folder with DICOM files right in it."""
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
        paths = [Path(place) / name for name in names if not name.startswith(".")]
        volumes = [path for path in paths if path.name.lower().endswith(MEDICAL)]
        yield from volumes
        if any(_is_dicom(path) for path in paths if path not in volumes):
            yield Path(place)


def _is_dicom(path: Path) -> bool:
    """By its ending or, as scanners and discs often give none, by the mark after its preamble."""
    if path.suffix.lower() == ".dcm":
        return True
    if path.name.upper() == "DICOMDIR":  # a table of contents
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


PLAIN = Source(
    name="plain",
    title="a folder of volumes or DICOM series, unlabelled",
    layout=(
        "<patient>.nii.gz or <patient>/<anything>.nii.gz (.nrrd, .mha ... alike), or "
        "<patient>/[.../]<DICOM files>"
    ),
    landmarks=tuple(f"**/*{ending}" for ending in (*MEDICAL, ".dcm")),
    meanings={},
    find=_find,
    caution=(
        "All in one folder below the top is taken as one patient, and so is each file at the top. "
        "Masks are not told from images: keep them elsewhere or use another layout."
    ),
)
