"""CT series in folders of DICOM files.

Only the files directly in a folder count. A series may be spread over several folders:
:func:`find_series` puts it together by its SeriesInstanceUID, which identifies a series.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.misc import is_dicom
from pydicom.uid import EnhancedCTImageStorage, SecondaryCaptureImageStorage

from pyro_stitchnet.data.scans.common import (
    LPS_TO_RAS,
    counted,
    looks_hounsfield,
    reading,
    without_warnings,
)
from pyro_stitchnet.data.scans.dicom_identity import (
    ACQUISITION_TAGS,
    Headers,
    Part,
    refuse_mixed,
    without_copies,
)
from pyro_stitchnet.data.scans.dicom_pixels import read_grey
from pyro_stitchnet.data.scans.dicom_slices import (
    CT_MODALITIES,
    MEND,
    TAGS,
    DicomSlice,
    parse_header,
    series_affine,
    text_of,
)
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS, VOLUME_ENDINGS
from pyro_stitchnet.data.scans.volume import Volume, check_affine

__all__ = ["OpenSeries", "Series", "are_parts", "find_series", "open_series"]

AGAIN = "fetch it again or remove it"
HEAD = 2**16  # bytes of a file that hold its header up to the UID of its series


@dataclass(frozen=True)
class Series:
    """One series. Texts are "" where the headers lack them.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber, which scanners and viewers show.
        description: SeriesDescription.
        modality: "CT" and others.
        patient: PatientID.
        study: StudyInstanceUID.
        files: one for each slice, sorted by folder and name.
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

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of its files."""
        return tuple(dict.fromkeys(file.parent for file in self.files))

    @property
    def home(self) -> Path:
        """The folder of its files, or the one that holds all of its folders."""
        return Path(os.path.commonpath(self.folders))

    def __str__(self) -> str:
        """UID, modality, description and number of slices, in one line."""
        return (
            f"{self.uid}: {self.modality or 'no modality'}, "
            f"{self.description or 'no description'}, {counted(len(self.files), 'slice')}"
        )


def find_series(folders: Iterable[Path]) -> tuple[list[Series], dict[Path, str]]:
    """List the CT series in many folders.

    Files of one series in several folders are one scan where they continue each other, see
    :class:`~pyro_stitchnet.data.scans.dicom_identity.Part`; otherwise one scan for each folder.

    Args:
        folders: each without its subfolders.

    Returns:
        The series, in the order of the folders and by UID; and the folders that cannot be listed,
        with the reason. Series of such a folder are returned only if other folders have parts of
        them; :func:`open_series` then names the file at fault.
    """
    scans: dict[str, list[tuple[Series, Part]]] = {}
    bad: dict[Path, str] = {}
    for folder in folders:
        try:
            with without_warnings():
                found = _headers(folder)
                here = [one for one in found.described() if one.is_ct]
                parts = [Part.of(found.headers.get(one.uid, {})) for one in here]
            fault = found.unknown
        except (ValueError, OSError) as error:
            here, parts, fault = [], [], str(error)
        if fault:
            bad[folder] = fault
        for one, part in zip(here, parts, strict=True):
            known = scans.setdefault(one.uid, [])
            whole = (k for k, (_, other) in enumerate(known) if one.uid and part.continues(other))
            if (k := next(whole, None)) is None:
                known.append((one, part))
            else:
                before, other = known[k]
                files = before.files + one.files
                known[k] = replace(before, files=files), other.joined(part)
    found_scans = [one for known in scans.values() for one, _ in known]
    return [one for one in found_scans if not {*one.folders} <= {*bad}], bad


def are_parts(one: Path | Sequence[Path], other: Path | Sequence[Path], uid: str) -> bool:
    """Return whether the files of a series in two places are parts of one scan.

    Raises:
        FileNotFoundError: there is nothing at a path.
        ValueError: a header is unreadable; the message names the file.
    """
    with without_warnings():
        first, second = (Part.of(_headers(place).headers.get(uid, {})) for place in (one, other))
    return first.continues(second)


@dataclass(frozen=True)
class OpenSeries:
    """A series whose headers are read, and whose slices can be read one by one.

    Attributes:
        source: the folder or file; of several folders the one that holds them all.
        series: its description; its files are sorted along the slices' normal.
        affine: of voxels (columns, rows, slices), RAS+, (4, 4).
        shape: columns, rows, slices.
        hounsfield: whether all files have a RescaleIntercept, which means that grey values are
            Hounsfield units.
        lossy: whether a file was compressed with losses.
        spaced: whether the distance between slices is known; if not, it is 1.
    """

    source: Path
    series: Series
    affine: np.ndarray
    shape: tuple[int, int, int]
    hounsfield: bool
    lossy: bool
    spaced: bool
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
                grey = read_grey(one)
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
        study, spaced = self.series.study, self.spaced
        return Volume(voxels.T, self.affine, hounsfield, self.source, study=study, spaced=spaced)


def open_series(path: Path | Sequence[Path], uid: str | None = None) -> OpenSeries:
    """Read the headers of one CT series.

    Slices are sorted along their normal (axial slices: feet to head). A gantry tilt is kept in the
    affine. Slices without ImagePositionPatient are taken as axial, one slice thickness apart and
    with InstanceNumber rising from feet to head, which is a guess. Identical copies of a file
    count once.

    Args:
        path: a folder, without its subfolders, several folders, or one file, read as one slice.
        uid: SeriesInstanceUID; None where there is one CT series.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: there is no CT series, or there are several and no ``uid``; a header is
            unreadable; slices are missing or do not fit together; or the series is of several
            patients or acquisitions. The message names the file or folder.
    """
    source = path if isinstance(path, Path) else Path(os.path.commonpath(path))
    with without_warnings():
        headers = without_copies(_choose(source, _headers(path), uid))
        slices = sorted(
            (parse_header(file, header) for file, header in headers.items()),
            key=lambda one: one.height,
        )
        refuse_mixed(source, slices, headers)
        rows, columns = slices[0].shape
        affine = LPS_TO_RAS @ series_affine(slices)
        check_affine(affine, source)
        return OpenSeries(
            source,
            _describe({one.file: headers[one.file] for one in slices}),
            affine,
            (columns, rows, len(slices)),
            all(one.rescale for one in slices),
            any(one.lossy for one in slices),
            len(slices) > 1 or slices[0].thickness > 0,
            tuple(slices),
        )


@dataclass(frozen=True)
class _Found:
    """The series of some folders.

    Attributes:
        headers: of every series, by UID.
        faults: by UID, file -> why it is unreadable, for files whose series is known.
        unknown: why a file of an unknown series is unreadable; "" if there is none.
    """

    headers: Mapping[str, Headers]
    faults: Mapping[str, Mapping[Path, str]]
    unknown: str

    def check(self, uid: str | None = None) -> None:
        """Refuse a file that may belong to every series, or one that belongs to this series."""
        for fault in (self.unknown, *self.faults.get(uid or "", {}).values()):
            if fault:
                raise ValueError(fault)

    def described(self) -> list[Series]:
        """Describe the series, sorted by UID."""
        described = []
        for uid in sorted({*self.headers, *self.faults}):
            headers, faulty = self.headers.get(uid, {}), self.faults.get(uid, {})
            one = _describe(headers) if headers else Series(uid, "", "", "", "", "", ())
            described.append(replace(one, files=tuple(sorted({*one.files, *faulty}))))
        return described


def _headers(path: Path | Sequence[Path]) -> _Found:
    """Return the headers of every series."""
    series: dict[str, dict[Path, pydicom.Dataset]] = defaultdict(dict)
    bad: dict[Path, str] = {}
    for file in _files([path] if isinstance(path, Path) else path):
        try:
            with reading(file, AGAIN):
                if (header := _header(file)) is not None:
                    series[text_of(header, "SeriesInstanceUID")][file] = header
        except ValueError as error:
            bad[file] = str(error)
    faults: dict[str, dict[Path, str]] = defaultdict(dict)
    for file, fault in bad.items():
        if uid := _series_of(file):
            faults[uid][file] = fault
    known = {file for files in faults.values() for file in files}
    return _Found(series, faults, next((bad[file] for file in bad if file not in known), ""))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files to read, sorted by name in each folder."""
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: missing; give a DICOM folder or file")
        if path.is_dir():  # macOS leaves hidden files in the archives it makes
            yield from sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
        else:
            yield path


def _series_of(file: Path) -> str:
    """Return the SeriesInstanceUID in an unreadable file; "" if there is none."""
    with file.open("rb") as opened:
        head = opened.read(HEAD)
    if (tag := head.find(b"\x20\x00\x0e\x00")) < 0:
        return ""
    kind, value = head[tag + 4 : tag + 8], head[tag + 8 :]  # type and length, or a longer length
    length = int.from_bytes(kind[2:] if kind[:2].isalpha() else kind, "little")
    uid = value[:length].rstrip(b"\0 ")
    whole = length <= len(value) and re.fullmatch(rb"[\d.]+", uid)
    return uid.decode("ascii") if whole else ""


def _header(file: Path) -> pydicom.Dataset | None:
    """Return the tags of a slice; None if the file holds no slice."""
    if not is_dicom(file):
        if file.suffix.lower() == ".dcm":
            raise ValueError("its name ends in .dcm, but it is not DICOM")
        return None
    header = pydicom.dcmread(
        file, stop_before_pixels=True, specific_tags=[*TAGS, *ACQUISITION_TAGS]
    )
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
            uid=text_of(header, "SeriesInstanceUID"),
            number=text_of(header, "SeriesNumber"),
            description=text_of(header, "SeriesDescription"),
            modality=text_of(header, "Modality"),
            patient=text_of(header, "PatientID"),
            study=text_of(header, "StudyInstanceUID"),
            files=tuple(headers),
        )


def _choose(path: Path, found: _Found, uid: str | None) -> Headers:
    """Return the headers of the series ``uid``, or of the only CT series."""
    found.check(uid)
    described = found.described()
    if not described and path.is_file():
        endings = ", ".join((*VOLUME_ENDINGS, *IMAGE_ENDINGS, ".npy"))
        raise ValueError(
            f"{path}: neither DICOM nor a file of {endings}; convert it to one or, if it is "
            "damaged, fetch it again"
        )
    if not described:
        raise ValueError(
            f"{path}: holds no DICOM slices (localisers, screen captures and files in subfolders "
            "do not count); give the folder of a CT series itself or, of another format, the file"
        )
    if uid is not None and uid in found.headers:
        return found.headers[uid]
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
    found.check(scans[0].uid)
    return found.headers[scans[0].uid]
