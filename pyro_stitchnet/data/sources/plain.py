"""A user's bare folder of scans, none of them labelled."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pyro_stitchnet.data.scans.dicom import Series, list_series
from pyro_stitchnet.data.sources.base import Scan, Source
from pyro_stitchnet.data.sources.paths import MEDICAL, natural, stem

__all__ = ["PLAIN"]


def _find(folder: Path) -> Iterator[Scan]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found = sorted(_scans(folder), key=lambda each: natural(each[0].name))
    patients = _patients((scan.patient, number) for scan, number in found)
    for scan, _ in found:
        yield replace(scan, patient=patients[scan.patient])


def _raised(error: OSError) -> None:
    """A folder that cannot be read is not passed over."""
    raise error


def _scans(folder: Path) -> Iterator[tuple[Scan, str]]:
    """Every volume and CT series, whose patient is as yet its place; with its PatientID."""
    for place, below, names in os.walk(folder, onerror=_raised):
        below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
        here = Path(place)
        for name in names:
            if name.lower().endswith(MEDICAL) and not name.startswith("."):
                path = (here / name).relative_to(folder)
                path = path.with_name(stem(path))
                yield Scan(path.as_posix(), path.parts[0], here / name), ""
        # A folder called by a DICOM UID has dots, but no ending.
        path = Path(folder.resolve().name) if here == folder else here.relative_to(folder)
        scan = Scan(path.as_posix(), path.parts[0], here)
        try:
            series = [one for one in list_series(here) if one.is_ct]
        except ValueError:  # raised again for who reads the folder, and may skip it
            yield scan, ""
            continue
        for one, label in zip(series, _labels(series), strict=True):
            name = scan.name if len(series) == 1 else f"{scan.name}/{label}"
            yield replace(scan, name=name, series=one.uid), one.patient


def _labels(series: Sequence[Series]) -> list[str]:
    """What tells a folder's series apart: number and description, and UID where they do not."""
    short = [
        re.sub(r"[^\w.+-]+", "_", " ".join(filter(None, (one.number, one.description))))
        for one in series
    ]
    times = Counter(short)
    return [
        label if label and times[label] == 1 else f"{label}_{one.uid}".strip("_") or "unnamed"
        for label, one in zip(short, series, strict=True)
    ]


def _patients(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Whose each place is: of places that share a PatientID, the first is their patient's name."""
    patients: dict[str, str] = {}
    first: dict[str, str] = {}  # place of a PatientID
    for place, number in found:
        patient = patients.setdefault(place, place)
        if number:
            same = {patient, patients[first.setdefault(number, place)]}
            name = next(other for other in patients if other in same)
            patients |= {other: name for other, whose in patients.items() if whose in same}
    return patients


PLAIN = Source(
    name="plain",
    title="a folder of volumes or DICOM series, unlabelled",
    layout=(
        "<patient>.nii.gz or <patient>/<anything>.nii.gz (.nrrd, .mha ... alike), or "
        "<patient>/[.../]<DICOM files> of one or more series"
    ),
    landmarks=tuple(f"**/*{ending}" for ending in (*MEDICAL, ".dcm", "DICOMDIR")),
    meanings={},
    find=_find,
    caution=(
        "All in one folder below the top is taken as one patient, and so is each file at the top. "
        "DICOM folders that share a PatientID are one patient, too: if an anonymised export gives "
        "one to all, clear that tag. Masks are not told from images: keep them elsewhere or use "
        "another layout."
    ),
)
"""Volumes and DICOM folders, nothing labelled."""
