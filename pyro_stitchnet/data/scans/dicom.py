"""CT series in folders of DICOM files.

Only the files directly in a folder count: files in its subfolders belong to other scans.
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
    reading,
    without_warnings,
)
from pyro_stitchnet.data.scans.dicom_slices import (
    CT_MODALITIES,
    MEND,
    TAGS,
    DicomSlice,
    parse_header,
    series_affine,
)
from pyro_stitchnet.data.scans.volume import Volume

__all__ = ["OpenSeries", "Series", "list_series", "open_series"]

AIR = -1024  # Hounsfield units


@dataclass(frozen=True)
class Series:
    """One series of a folder. Texts are "" where the headers lack them.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber, which scanners and viewers show.
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
        """Whether the modality is CT or missing."""
        return self.modality in CT_MODALITIES

    def __str__(self) -> str:
        """UID, modality, description and number of slices, in one line."""
        return (
            f"{self.uid}: {self.modality or 'no modality'}, "
            f"{self.description or 'no description'}, {counted(len(self.files), 'slice')}"
        )


def list_series(path: Path) -> list[Series]:
    """List the series of a folder, sorted by UID; only headers are read.

    Left out are hidden files, files that are not DICOM, objects without pixels (DICOMDIR, reports),
    localisers, and secondary captures without a position in the patient (dose reports).

    Args:
        path: a folder, without its subfolders, or one file.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a header is unreadable, so its series is unknown; the message names the file.
    """
    with without_warnings():
        return [_describe(headers) for _, headers in sorted(_headers(path).items())]


@dataclass(frozen=True)
class OpenSeries:
    """A series whose headers are read, and whose slices can be read one by one.

    Attributes:
        source: the folder or file.
        series: its description; its files are sorted along the slices' normal.
        affine: of voxels (columns, rows, slices), RAS+, (4, 4).
        shape: columns, rows, slices.
        hounsfield: whether all files have a RescaleIntercept, so that grey values are certainly
            Hounsfield units.
    """

    source: Path
    series: Series
    affine: np.ndarray
    shape: tuple[int, int, int]
    hounsfield: bool
    _slices: tuple[DicomSlice, ...]

    def slices(self) -> Iterator[np.ndarray]:
        """Read the slices' grey values, float32 (rows, columns), in the order of the files.

        Grey values are rescaled to Hounsfield units; padding becomes air. JPEG needs a plugin of
        pydicom, such as python-gdcm.

        Raises:
            ValueError: a file is unreadable; the message names it.
        """
        for one in self._slices:
            with without_warnings():
                grey = _grey(one)
            yield grey

    def volume(self) -> Volume:
        """Read the whole series; errors are those of :meth:`slices`.

        Without a RescaleIntercept in every file the unit is decided by
        :func:`~pyro_stitchnet.data.scans.common.looks_hounsfield`.
        """
        voxels = np.empty(self.shape[::-1], np.float32)
        for k, grey in enumerate(self.slices()):
            voxels[k] = grey
        hounsfield = self.hounsfield or looks_hounsfield(voxels)
        return Volume(voxels.T, self.affine, hounsfield, self.source, study=self.series.study)


def open_series(path: Path, uid: str | None = None) -> OpenSeries:
    """Read the headers of one CT series.

    Slices are sorted along their normal (axial slices: feet to head). A gantry tilt is kept in the
    affine. Slices without ImagePositionPatient are taken as axial, one slice thickness apart and
    with InstanceNumber rising from feet to head, which is a guess.

    Args:
        path: a folder, without its subfolders, or one file, read as one slice.
        uid: SeriesInstanceUID; None where there is one CT series.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: there is no CT series, or there are several and no ``uid``; a header is
            unreadable; or slices are missing or do not fit together. The message names the file.
    """
    with without_warnings():
        headers = _choose(path, _headers(path), uid)
        slices = sorted(
            (parse_header(file, header) for file, header in headers.items()),
            key=lambda one: one.height,
        )
        rows, columns = slices[0].shape
        return OpenSeries(
            path,
            _describe({one.file: headers[one.file] for one in slices}),
            LPS_TO_RAS @ series_affine(slices),
            (columns, rows, len(slices)),
            all(one.rescale for one in slices),
            tuple(slices),
        )


Headers = Mapping[Path, pydicom.Dataset]  # of one series' files


def _headers(path: Path) -> dict[str, Headers]:
    """Return the headers of every series, by UID."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; give a DICOM folder or file")
    files = [path]
    if path.is_dir():  # macOS leaves hidden files in the archives it makes
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    series: dict[str, dict[Path, pydicom.Dataset]] = defaultdict(dict)
    for file in files:
        if (header := _header(file)) is not None:
            series[_text(header, "SeriesInstanceUID")][file] = header
    return dict(series)


def _header(file: Path) -> pydicom.Dataset | None:
    """Return the :data:`TAGS` of a slice; None if the file holds no slice."""
    with reading(file, "fetch it again or remove it"):
        if not is_dicom(file):
            if file.suffix.lower() == ".dcm":
                raise ValueError("its name ends in .dcm, but it is not DICOM")
            return None
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
        if "LOCALIZER" in (header.get("ImageType") or ()):
            return None
        if "Rows" not in header or "Columns" not in header:
            kind = str(header.file_meta.get("MediaStorageSOPClassUID", ""))
            # The UID of a CT, or the part of it that a truncated file still has.
            if EnhancedCTImageStorage.startswith(kind):
                raise ValueError("it ends before its pixels")
            return None
        capture = str(header.get("SOPClassUID", "")).startswith(SecondaryCaptureImageStorage)
        return None if capture and not header.get("ImagePositionPatient") else header


def _describe(headers: Headers) -> Series:
    file, header = next(iter(headers.items()))
    with reading(file, MEND):
        return Series(
            uid=_text(header, "SeriesInstanceUID"),
            number=_text(header, "SeriesNumber"),
            description=_text(header, "SeriesDescription"),
            modality=_text(header, "Modality"),
            patient=_text(header, "PatientID"),
            study=_text(header, "StudyInstanceUID"),
            files=tuple(headers),
        )


def _text(header: pydicom.Dataset, tag: str) -> str:
    return str(header.get(tag) or "")


def _choose(path: Path, series: Mapping[str, Headers], uid: str | None) -> Headers:
    """Return the headers of the series ``uid``, or of the only CT series."""
    if not series:
        raise ValueError(
            f"{path}: holds no DICOM slices (localisers, screen captures and files in subfolders "
            "do not count); give the folder of a CT series itself or, of another format, the file"
        )
    if uid is not None and uid in series:
        return series[uid]
    described = [_describe(headers) for _, headers in sorted(series.items())]
    listing = "".join(f"\n  {one}" for one in described)
    if uid is not None:
        raise ValueError(f"{path}: holds no series {uid}; choose one of:{listing}")
    scans = [one for one in described if one.is_ct]
    if not scans:
        raise ValueError(f"{path}: holds no CT series; give a folder with one, not with:{listing}")
    if len(scans) > 1:
        raise ValueError(
            f"{path}: holds {len(scans)} CT series; give each a folder of its own, or choose with "
            f"series= one of:{listing}"
        )
    return series[scans[0].uid]


def _grey(one: DicomSlice) -> np.ndarray:
    """Read grey values, float32 (R, C)."""
    with reading(one.file, "fetch the file again, or decompress it (as by gdcmconv --raw)"):
        # pixel_array(one.file) would accept a truncated lossless JPEG.
        stored = pixel_array(pydicom.dcmread(one.file), raw=True).reshape(one.shape)
    slope, intercept = one.rescale or (1.0, 0.0)
    grey = (stored * slope + intercept).astype(np.float32)
    if one.padding is not None:
        # Some files give the padding of signed pixels as an unsigned number: the cast wraps it.
        low, high = np.array(one.padding).astype(stored.dtype)
        grey[(stored >= low) & (stored <= high)] = AIR
    return grey
