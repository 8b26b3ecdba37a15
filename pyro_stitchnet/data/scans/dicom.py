"""CT series in folders of DICOM files.

A folder means the files right in it: what lies in folders below it is of other scans.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.misc import is_dicom
from pydicom.pixels import pixel_array
from pydicom.uid import EnhancedCTImageStorage, SecondaryCaptureImageStorage

from pyro_stitchnet.data.scans.common import (
    LPS_TO_RAS,
    counted,
    looks_hounsfield,
    refusing,
    without_warnings,
)
from pyro_stitchnet.data.scans.dicom_slices import CT, TAGS, Slice, grid, read_slice
from pyro_stitchnet.data.scans.volume import Volume

__all__ = ["OpenSeries", "Series", "list_series", "open_series", "read_series"]

AIR = -1024  # Hounsfield units


@dataclass(frozen=True)
class Series:
    """One series of a folder. Texts are "" where the files do not say.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber, by which scanners and viewers call it.
        description: SeriesDescription.
        modality: "CT" and others.
        patient: PatientID.
        study: StudyInstanceUID.
        files: one for each slice, sorted by name.
    """

    uid: str
    number: str
    description: str
    modality: str
    patient: str
    study: str
    files: tuple[Path, ...]

    @property
    def is_ct(self) -> bool:
        """Whether it says CT, or nothing."""
        return self.modality in CT

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.uid}: {self.modality or 'no modality'}, "
            f"{self.description or 'no description'}, {counted(len(self.files), 'slice')}"
        )


def list_series(path: Path) -> list[Series]:
    """The series of a folder, sorted by UID.

    Only headers are read. Passed over are files that are not DICOM, hidden ones, objects without
    pixels (DICOMDIR, reports), localisers and pictures of a screen (secondary captures that lie
    nowhere in the patient, as dose reports do).

    Args:
        path: a folder, whose own folders are left out, or one file.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a header is unreadable, so that its file may be of any series here; the message
            names the file.
    """
    with without_warnings():
        return [_describe(heads) for _, heads in sorted(_headers(path).items())]


def read_series(path: Path, uid: str | None = None) -> Volume:
    """Read one CT series.

    Grey values are rescaled to Hounsfield units; where the files pad what was not measured, it is
    air. Voxels are float32 (columns, rows, slices), the slices sorted along their normal (of axial
    slices: feet to head). A gantry tilt is kept in the affine. Slices without ImagePositionPatient
    are taken as axial, one slice's thickness apart and with InstanceNumber rising from feet to
    head, which is a guess. Hounsfield units are taken for granted where files have a
    RescaleIntercept, else see :func:`~pyro_stitchnet.data.scans.common.looks_hounsfield`.

    JPEG needs a plugin of pydicom, such as python-gdcm or pylibjpeg.

    Args:
        path: a folder, whose own folders are left out, or one file, read as one slice.
        uid: SeriesInstanceUID; None where there is one CT series.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: several series and no ``uid``, none, a file is unreadable, or slices are
            missing or do not fit together; the message names the file.
    """
    opened = open_series(path, uid)
    voxels = np.empty(opened.shape[::-1], np.float32)
    for k, grey in enumerate(opened.slices()):
        voxels[k] = grey
    known = opened.hounsfield or looks_hounsfield(voxels)
    series = opened.series
    return Volume(voxels.T, opened.affine, known, path, patient=series.patient, study=series.study)


@dataclass(frozen=True)
class OpenSeries:
    """A series whose headers are read, and whose slices are read one by one.

    Attributes:
        series: what the headers say; its files are sorted along the slices' normal.
        affine: of voxels (columns, rows, slices), RAS+, (4, 4).
        shape: columns, rows, slices.
        hounsfield: whether all files have a RescaleIntercept, so that grey values are Hounsfield
            units for certain.
    """

    series: Series
    affine: np.ndarray
    shape: tuple[int, int, int]
    hounsfield: bool
    _slices: tuple[Slice, ...]

    def slices(self) -> Iterator[np.ndarray]:
        """The slices' grey values, float32 (rows, columns).

        Raises:
            ValueError: a file is unreadable; the message names it.
        """
        for one in self._slices:
            with without_warnings():
                grey = _grey(one)
            yield grey


def open_series(path: Path, uid: str | None = None) -> OpenSeries:
    """Read the headers of one CT series.

    Arguments and errors are those of :func:`read_series`, but for what only pixels tell.
    """
    with without_warnings():
        heads = _choose(path, _headers(path), uid)
        slices = sorted(
            (read_slice(file, head) for file, head in heads.items()), key=lambda one: one.height
        )
        rows, columns = slices[0].shape
        return OpenSeries(
            _describe({one.file: heads[one.file] for one in slices}),
            LPS_TO_RAS @ grid(slices),
            (columns, rows, len(slices)),
            all(one.rescale for one in slices),
            tuple(slices),
        )


Headers = Mapping[Path, pydicom.Dataset]  # of one series' files


def _headers(path: Path) -> dict[str, Headers]:
    """Series' UIDs, and the headers of their files."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; give a DICOM folder or file")
    files = [path]
    if path.is_dir():  # macOS leaves hidden files beside what it packs
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    series: dict[str, dict[Path, pydicom.Dataset]] = defaultdict(dict)
    for file in files:
        if (head := _header(file)) is not None:
            series[_text(head, "SeriesInstanceUID")][file] = head
    return dict(series)


def _header(file: Path) -> pydicom.Dataset | None:
    """The :data:`TAGS` of a slice; None if the file holds none."""
    with refusing(file, "fetch it again or remove it"):
        if not is_dicom(file):
            if file.suffix.lower() == ".dcm":
                raise ValueError("it is no DICOM file, though called one")
            return None
        head = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
        if "LOCALIZER" in (head.get("ImageType") or ()):
            return None
        if "Rows" not in head or "Columns" not in head:
            kind = str(head.file_meta.get("MediaStorageSOPClassUID", ""))
            if EnhancedCTImageStorage.startswith(kind):  # that of a CT, or as much as is left of it
                raise ValueError("it ends before its pixels")
            return None
        screen = str(head.get("SOPClassUID", "")).startswith(SecondaryCaptureImageStorage)
        return None if screen and not head.get("ImagePositionPatient") else head


def _describe(heads: Headers) -> Series:
    file, head = next(iter(heads.items()))
    with refusing(file, "mend its tags, or export the series again"):
        return Series(
            uid=_text(head, "SeriesInstanceUID"),
            number=_text(head, "SeriesNumber"),
            description=_text(head, "SeriesDescription"),
            modality=_text(head, "Modality"),
            patient=_text(head, "PatientID"),
            study=_text(head, "StudyInstanceUID"),
            files=tuple(heads),
        )


def _text(head: pydicom.Dataset, tag: str) -> str:
    return str(head.get(tag) or "")


def _choose(path: Path, found: Mapping[str, Headers], uid: str | None) -> Headers:
    if not found:
        raise ValueError(
            f"{path}: holds no DICOM slices (localisers, pictures of a screen and what lies in "
            "folders below do not count); give the folder of a CT series itself or, of another "
            "format, the file"
        )
    if uid is not None and uid in found:
        return found[uid]
    listed = [_describe(heads) for _, heads in sorted(found.items())]
    listing = "".join(f"\n  {series}" for series in listed)
    if uid is not None:
        raise ValueError(f"{path}: holds no series {uid}; choose one of:{listing}")
    scans = [series for series in listed if series.is_ct]
    if not scans:
        raise ValueError(f"{path}: holds no CT series; give a folder with one, not with:{listing}")
    if len(scans) > 1:
        raise ValueError(
            f"{path}: holds {len(scans)} CT series; give each a folder of its own, or choose with "
            f"series= one of:{listing}"
        )
    return found[scans[0].uid]


def _grey(one: Slice) -> np.ndarray:
    """Grey values, float32 (R, C)."""
    with refusing(one.file, "fetch the file again, or decompress it (as by gdcmconv --raw)"):
        # Not pixel_array(one.file), which takes a truncated lossless JPEG for whole.
        stored = pixel_array(pydicom.dcmread(one.file), raw=True).reshape(one.shape)
    slope, intercept = one.rescale or (1.0, 0.0)
    grey = (stored * slope + intercept).astype(np.float32)
    if one.padding is not None:
        # Some write the padding of signed pixels as if they were unsigned: let it wrap.
        low, high = np.array(one.padding).astype(stored.dtype)
        grey[(stored >= low) & (stored <= high)] = AIR
    return grey
