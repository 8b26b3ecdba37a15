"""A user's folder of unlabelled scans."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_stitchnet.data.scans.endings import VOLUME_ENDINGS
from pyro_stitchnet.data.sources.base import ScanFiles, Source
from pyro_stitchnet.data.sources.paths import natural, stem

if TYPE_CHECKING:
    from pyro_stitchnet.data.scans.dicom import Series

__all__ = ["PLAIN"]


def _find(folder: Path) -> Iterator[ScanFiles]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    scans = sorted(_scans(folder), key=lambda pair: natural(pair[0].name))
    patients = _patients((scan.patient, patient_id) for scan, patient_id in scans)
    for scan, _ in scans:
        yield replace(scan, patient=patients[scan.patient])


def _raised(error: OSError) -> None:
    """Make os.walk raise at a folder that cannot be read, instead of skipping it."""
    raise error


def _scans(folder: Path) -> Iterator[tuple[ScanFiles, str]]:
    """Yield every volume and CT series, named after its place, with its PatientID."""
    from pyro_stitchnet.data.scans.dicom import list_series  # pydicom is slow to import

    for place, below, names in os.walk(folder, onerror=_raised):
        below[:] = [name for name in below if not name.startswith(".") and name != "__MACOSX"]
        here = Path(place)
        for name in names:
            if name.lower().endswith(VOLUME_ENDINGS) and not name.startswith("."):
                path = (here / name).relative_to(folder)
                path = path.with_name(stem(path))
                yield ScanFiles(path.as_posix(), path.parts[0], here / name), ""
        # A folder named by a DICOM UID has dots, but no ending.
        path = Path(folder.resolve().name) if here == folder else here.relative_to(folder)
        scan = ScanFiles(path.as_posix(), path.parts[0], here)
        try:
            series = [one for one in list_series(here) if one.is_ct]
        except ValueError:  # raised again when the folder is read, where it may be skipped
            yield scan, ""
            continue
        for one, label in zip(series, _labels(series), strict=True):
            name = scan.name if len(series) == 1 else f"{scan.name}/{label}"
            yield replace(scan, name=name, series=one.uid), one.patient


def _labels(series: "Sequence[Series]") -> list[str]:
    """Return a unique label for each series: number and description, with the UID if needed."""
    short = [
        re.sub(r"[^\w.+-]+", "_", " ".join(filter(None, (one.number, one.description))))
        for one in series
    ]
    times = Counter(short)
    return [
        label if label and times[label] == 1 else f"{label}_{one.uid}".strip("_") or "unnamed"
        for label, one in zip(short, series, strict=True)
    ]


def _patients(places: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return place -> patient; places that share a PatientID are named after the first of them."""
    patients: dict[str, str] = {}
    first: dict[str, str] = {}  # PatientID -> its first place
    for place, patient_id in places:
        patient = patients.setdefault(place, place)
        if patient_id:
            same = {patient, patients[first.setdefault(patient_id, place)]}
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
    landmarks=tuple(f"**/*{ending}" for ending in (*VOLUME_ENDINGS, ".dcm", "DICOMDIR")),
    rule={},
    find=_find,
    caution=(
        "Each folder at the top counts as one patient, and so does each file at the top. DICOM "
        "folders that share a PatientID are one patient, too: if an anonymised export gives the "
        "same to all, clear that tag. Masks cannot be distinguished from images: keep them "
        "elsewhere or use another layout."
    ),
)
"""Volumes and DICOM folders, nothing labelled."""
