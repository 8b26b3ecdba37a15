"""CT series in folders of DICOM files."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.misc import is_dicom
from pydicom.pixels import pixel_array
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from pyro_stitchnet.data.volume import Volume

__all__ = [
    "AIR",
    "LPS_TO_RAS",
    "Series",
    "list_series",
    "looks_hounsfield",
    "read_series",
    "refusing",
    "without_warnings",
]

AIR = -1024  # Hounsfield units
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM and ITK point left and back, nibabel does not

CT = ("CT", "")  # modalities; who leaves the tag out has CT


@dataclass(frozen=True)
class Series:
    """One series of a folder.

    Attributes:
        uid: SeriesInstanceUID.
        description: SeriesDescription.
        modality: "CT" and others; "" where the files do not say.
        patient: PatientID; "" where the files do not say.
        study: StudyInstanceUID.
        files: one for each slice, sorted along the slices' normal (of axial slices: feet to head).
    """

    uid: str
    description: str
    modality: str
    patient: str
    study: str
    files: tuple[Path, ...]

    @property
    def slices(self) -> int:
        """Number of slices."""
        return len(self.files)


@dataclass(frozen=True)
class _Slice:
    """What one file's header says."""

    file: Path
    names: tuple[str, ...]  # the texts of Series, in its order
    flaw: str  # why it cannot be read; "" if it can
    shape: tuple[int, int]  # rows, columns
    spacing: np.ndarray  # between rows, between columns, mm
    directions: np.ndarray  # (2, 3) LPS: along a row, down a column
    position: np.ndarray | None  # (3,) LPS, mm, of the first voxel
    number: int | None  # InstanceNumber
    thickness: float  # 0 where not said
    rescale: tuple[float, float] | None  # slope, intercept
    padding: tuple[int, int] | None  # first and last stored value that stand for no measurement

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*self.directions)

    @property
    def height(self) -> float:
        """What slices are sorted by."""
        if self.position is not None:
            return float(self.position @ self.normal)
        return float(self.number or 0)


def without_warnings() -> warnings.catch_warnings:
    """Silences libraries while they read: what matters in a strange file becomes an error."""
    return warnings.catch_warnings(action="ignore")


@contextmanager
def refusing(path: Path, remedy: str) -> Iterator[None]:
    """Whatever a library raises on a bad file becomes a ValueError that names it."""
    try:
        yield
    except Exception as error:
        # On one line, without where in ITK's sources the error arose.
        reason = " ".join(str(error).split()).rpartition("ERROR: ")[2] or type(error).__name__
        raise ValueError(f"{path}: unreadable ({reason}); {remedy}") from error


def looks_hounsfield(voxels: np.ndarray) -> bool:
    """Whether grey values of unknown unit are Hounsfield units: some lie below -200.

    Only Hounsfield units reach so far below 0: air is -1000 and lung about -800.
    """
    return bool((voxels < -200).any())


def list_series(path: Path) -> list[Series]:
    """The series of a folder and the folders in it, sorted by UID.

    Files that are not DICOM, objects without pixels (DICOMDIR, reports) and localisers are passed
    over.

    Args:
        path: a folder, or one file.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a DICOM file's header is unreadable; the message names the file.
    """
    found = []
    for slices in _find(path).values():
        uid, description, modality, patient, study = slices[0].names
        files = tuple(one.file for one in slices)
        found.append(Series(uid, description, modality, patient, study, files))
    return found


def read_series(path: Path, uid: str | None = None) -> Volume:
    """Read one CT series.

    Grey values are rescaled to Hounsfield units; where the files pad what was not measured, it is
    air. Voxels are float32 (columns, rows, slices), the slices sorted along their normal. A gantry
    tilt is kept in the affine. Slices without ImagePositionPatient are taken as axial, one slice's
    thickness apart and with InstanceNumber rising from feet to head, which is a guess. Hounsfield
    units are taken for granted where files have a RescaleIntercept, else see
    :func:`looks_hounsfield`.

    JPEG needs a plugin of pydicom, such as python-gdcm or pylibjpeg.

    Args:
        path: a folder with folders in it as may be, or one file, read as one slice.
        uid: SeriesInstanceUID; None where there is one CT series.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: several series and no ``uid``, none, a file is unreadable, or slices are
            missing or do not fit together; the message names the file.
    """
    with without_warnings():
        slices = _choose(path, _find(path), uid)
        affine = LPS_TO_RAS @ _grid(slices)
        voxels = np.empty((len(slices), *slices[0].shape), np.float32)
        for k, one in enumerate(slices):
            voxels[k] = _grey(one)
        known = all(one.rescale for one in slices)
        patient, study = slices[0].names[-2:]
        return Volume(
            voxels.T, affine, known or looks_hounsfield(voxels), path, patient=patient, study=study
        )


def _find(path: Path) -> dict[str, list[_Slice]]:
    """Series' UIDs and their sorted slices."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing; give a DICOM folder or file")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    series = defaultdict(list)
    with without_warnings():
        for file in files:
            one = _header(file)
            if one is not None:
                series[one.names[0]].append(one)
        return {uid: sorted(series[uid], key=lambda one: one.height) for uid in sorted(series)}


def _header(file: Path) -> _Slice | None:
    """One slice; None if the file holds none."""
    with refusing(file, "fetch it again or remove it"):
        if not is_dicom(file):
            return None
        head = pydicom.dcmread(file, stop_before_pixels=True)
        if "LOCALIZER" in (head.get("ImageType") or ()):
            return None
        if "Rows" not in head:
            if head.file_meta.get("MediaStorageSOPClassUID") == CTImageStorage:
                raise ValueError("it ends before its pixels")
            return None
        names = "SeriesInstanceUID", "SeriesDescription", "Modality", "PatientID"
        orientation = head.get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0)
        position = head.get("ImagePositionPatient")
        number = head.get("InstanceNumber")
        intercept, slope = head.get("RescaleIntercept"), head.get("RescaleSlope")
        padding = head.get("PixelPaddingValue")
        limit = head.get("PixelPaddingRangeLimit", padding)
        return _Slice(
            file,
            tuple(str(head.get(name) or "") for name in (*names, "StudyInstanceUID")),
            _flaw(head),
            (int(head.Rows), int(head.Columns)),
            np.array(head.get("PixelSpacing") or (0, 0), float).reshape(2),
            np.array(orientation, float).reshape(2, 3),
            None if not position else np.array(position, float).reshape(3),
            None if number is None else int(number),
            abs(float(head.get("SpacingBetweenSlices") or head.get("SliceThickness") or 0)),
            None
            if intercept is None
            else (1.0 if slope is None else float(slope), float(intercept)),
            None if padding is None else (min(padding, limit), max(padding, limit)),
        )


def _flaw(head: pydicom.Dataset) -> str:
    if head.get("Modality", "") not in CT:
        return f"is of modality {head.Modality}; choose a CT series"
    many = int(head.get("NumberOfFrames") or 1) > 1
    if many or head.get("SOPClassUID") == EnhancedCTImageStorage:
        return "holds many frames in one file (enhanced CT); convert it to NIfTI, as by dcm2niix"
    if head.get("PhotometricInterpretation", "MONOCHROME2") != "MONOCHROME2":
        return f"has {head.PhotometricInterpretation} pixels, not MONOCHROME2; it is no CT slice"
    if not head.get("PixelSpacing"):
        return "gives no PixelSpacing; add the tag, or export the series again with it"
    return ""


def _choose(path: Path, found: Mapping[str, list[_Slice]], uid: str | None) -> list[_Slice]:
    listing = "".join(
        f"\n  {name}: {slices[0].names[2] or 'no modality'}, "
        f"{slices[0].names[1] or 'no description'}, {len(slices)} slices"
        for name, slices in found.items()
    )
    if not found:
        raise ValueError(
            f"{path}: holds no DICOM slices (localisers do not count); give the folder of a CT "
            "series, or for another format its file"
        )
    if uid is not None:
        if uid not in found:
            raise ValueError(f"{path}: holds no series {uid}; choose one of:{listing}")
        return found[uid]
    scans = [slices for slices in found.values() if slices[0].names[2] in CT]
    if not scans:
        raise ValueError(f"{path}: holds no CT series; give a folder with one, not with:{listing}")
    if len(scans) > 1:
        raise ValueError(
            f"{path}: holds {len(scans)} CT series; give each a folder of its own, or choose with "
            f"series= one of:{listing}"
        )
    return scans[0]


def _grid(slices: Sequence[_Slice]) -> np.ndarray:
    """The affine (4, 4), LPS, of voxels (columns, rows, slices)."""
    usual = slices[len(slices) // 2]  # those at the ends may not belong to it
    for one in slices:
        if one.flaw:
            raise ValueError(f"{one.file}: {one.flaw}")
        if one.shape != usual.shape:
            raise ValueError(
                f"{one.file}: is {one.shape}, but {usual.file.name} of the same series "
                f"{usual.shape}; move the slices of another size elsewhere"
            )
        if not (
            np.allclose(one.directions, usual.directions, atol=1e-3)
            and np.allclose(one.spacing, usual.spacing, rtol=1e-3)
        ):
            raise ValueError(
                f"{one.file}: has another orientation or pixel spacing than {usual.file.name} of "
                "the same series; move the slices that do not belong to it elsewhere"
            )
    if not np.allclose(usual.directions @ usual.directions.T, np.eye(2), atol=1e-2):
        raise ValueError(
            f"{usual.file}: its ImageOrientationPatient is no pair of perpendicular unit vectors; "
            "mend the tag, or export the series again"
        )
    positions = _positions(slices)
    affine = np.eye(4)
    affine[:3, :2] = usual.directions.T * usual.spacing[::-1]
    affine[:3, 2] = _step(slices, positions)
    affine[:3, 3] = positions[0]
    return affine


def _positions(slices: Sequence[_Slice]) -> np.ndarray:
    """Where the slices' first voxels lie, (S, 3)."""
    positions = [one.position for one in slices if one.position is not None]
    if len(positions) == len(slices):
        return np.stack(positions)
    if len(slices) == 1:
        return np.zeros((1, 3))
    for one in slices:
        if positions or one.number is None or not one.thickness:
            raise ValueError(
                f"{one.file}: its place among the slices is unknown; all slices need "
                "ImagePositionPatient, or else InstanceNumber and SliceThickness"
            )
    return np.stack([one.normal * one.thickness * one.height for one in slices])


def _step(slices: Sequence[_Slice], positions: np.ndarray) -> np.ndarray:
    """From one slice to the next, (3,) mm."""
    normal = slices[0].normal
    if len(slices) == 1:
        return normal * (slices[0].thickness or 1.0)
    steps = np.diff(positions, axis=0)
    usual = np.median(steps, axis=0)
    for step, one, following in zip(steps, slices, slices[1:], strict=False):
        if step @ normal < 1e-3:
            raise ValueError(
                f"{following.file}: lies where {one.file.name} lies; keep one of the two, or "
                "part the scans that share the series"
            )
        if not np.linalg.norm(step - usual) <= 0.1 * np.linalg.norm(usual):
            raise ValueError(
                f"{one.file}: the next slice, {following.file.name}, lies {step @ normal:.4g} mm "
                f"further, others {usual @ normal:.4g} mm: slices are missing or unevenly spaced; "
                "fetch the whole series, or resample it evenly"
            )
    mean: np.ndarray = (positions[-1] - positions[0]) / (len(slices) - 1)
    return mean


def _grey(one: _Slice) -> np.ndarray:
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
