"""A user's folder of unlabelled scans."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_stitchnet.data.scans.endings import VOLUME_ENDINGS
from pyro_stitchnet.data.sources.base import ScanFiles, Source
from pyro_stitchnet.data.sources.paths import are_results, is_dead_link, natural, stem, walk
from pyro_stitchnet.runtime.text import identity

if TYPE_CHECKING:
    from pyro_stitchnet.data.scans.dicom import Series

__all__ = ["PLAIN"]


def _find(folder: Path) -> Iterator[ScanFiles]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    scans = sorted(_scans(folder), key=lambda pair: natural(pair[0].name))
    known = [(scan.patient, patient_id) for scan, patient_id in scans]
    for scan, _ in scans:
        if isinstance(scan.image, tuple):  # its folders are of one patient
            places = [scan.patient, *(_place(one, folder).parts[0] for one in scan.image)]
            known += [(place, f"series {scan.series}") for place in places]
    patients = _patients(known)
    for scan, _ in scans:
        yield replace(scan, patient=patients[scan.patient])


def _scans(folder: Path) -> Iterator[tuple[ScanFiles, str]]:
    """Yield every volume and CT series, named after its place, with its PatientID."""
    unreadable: list[OSError] = []
    places: list[Path] = []
    for here, below, names in walk(folder, unreadable.append):
        if are_results(names):
            below.clear()
            fault = f"{here}: holds results of `stitchnet predict`, not a scan; move it elsewhere"
            yield replace(_at(here, folder), fault=fault), ""
            continue
        places.append(here)
        for name in names:
            file = here / name
            path = file.relative_to(folder)
            if name.lower().endswith(VOLUME_ENDINGS):
                path = path.with_name(stem(path))
                yield ScanFiles(path.as_posix(), path.parts[0], file), ""
            elif is_dead_link(file):
                fault = f"{file}: a broken link; repair or remove it"
                yield ScanFiles(path.as_posix(), path.parts[0], file, fault=fault), ""
    yield from _series(places, folder)
    for error in unreadable:
        place = Path(error.filename)
        yield replace(_at(place, folder), fault=f"{place}: cannot be read ({error.strerror})"), ""


def _series(places: Sequence[Path], folder: Path) -> Iterator[tuple[ScanFiles, str]]:
    """Yield every CT series, named after the folder that holds its files, with its PatientID."""
    from pyro_stitchnet.data.scans.dicom import find_series  # pydicom is slow to import

    found, bad = find_series(places)
    for place, fault in bad.items():
        yield replace(_at(place, folder), fault=fault), ""
    by_home: dict[Path, list[Series]] = {}
    for one in found:
        by_home.setdefault(one.home, []).append(one)
    for home, here in by_home.items():
        alone = len(here) == 1 and home not in bad
        for one, label in zip(here, _labels(here), strict=True):
            scan = _at(home, folder)
            yield (
                replace(
                    scan,
                    name=scan.name if alone else f"{scan.name}/{label}",
                    image=one.folders if len(one.folders) > 1 else home,
                    series=one.uid,
                ),
                identity(one.patient),
            )


def _at(here: Path, folder: Path) -> ScanFiles:
    """Return a scan that is named after its folder."""
    path = _place(here, folder)
    return ScanFiles(path.as_posix(), path.parts[0], here)


def _place(here: Path, folder: Path) -> Path:
    # A folder named by a DICOM UID has dots, but no ending.
    return Path(folder.resolve().name) if here == folder else here.relative_to(folder)


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
    landmarks=tuple(f"**/*{ending}" for ending in (*VOLUME_ENDINGS, ".dcm", "dicomdir")),
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
