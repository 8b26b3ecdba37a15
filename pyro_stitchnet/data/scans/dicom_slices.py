"""The slices of one DICOM series: what a header says of each, and the grid that they make up."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage

from pyro_stitchnet.data.scans.common import refusing

__all__ = ["CT", "TAGS", "Slice", "grid", "read_slice"]

CT = ("CT", "")  # modalities; who leaves the tag out has CT

# What is asked of a header.
TAGS = [
    *("ImageType", "SOPClassUID", "Modality", "PhotometricInterpretation", "NumberOfFrames"),
    *("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "StudyInstanceUID", "PatientID"),
    *("ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber"),
    *("SliceThickness", "SpacingBetweenSlices", "PixelSpacing", "Rows", "Columns"),
    *("RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    "PixelRepresentation",  # whether padding has a sign
]


@dataclass(frozen=True)
class Slice:
    """What one file's header says."""

    file: Path
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
        """(3,) LPS, a unit vector."""
        return np.cross(*self.directions)

    @property
    def height(self) -> float:
        """What slices are sorted by."""
        if self.position is not None:
            return float(self.position @ self.normal)
        return float(self.number or 0)


def read_slice(file: Path, head: Dataset) -> Slice:
    """What the header of a file says.

    Raises:
        ValueError: it is no slice of a CT, or a tag is missing or malformed.
    """
    with refusing(file, "fetch it again or remove it"):
        flaw = _flaw(head)
        orientation = head.get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0)
        position = head.get("ImagePositionPatient")
        number = head.get("InstanceNumber")
        intercept, slope = head.get("RescaleIntercept"), head.get("RescaleSlope")
        padding = head.get("PixelPaddingValue")
        limit = head.get("PixelPaddingRangeLimit", padding)
        read = Slice(
            file,
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
    if flaw:
        raise ValueError(f"{file}: {flaw}")
    return read


def grid(slices: Sequence[Slice]) -> np.ndarray:
    """The affine (4, 4), LPS, of voxels (columns, rows, slices).

    Args:
        slices: sorted by their height.

    Raises:
        ValueError: slices are missing or do not fit together; the message names a file.
    """
    usual = slices[len(slices) // 2]  # those at the ends may not belong to it
    for one in slices:
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


def _flaw(head: Dataset) -> str:
    """Why a slice cannot be read; "" if it can."""
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


def _positions(slices: Sequence[Slice]) -> np.ndarray:
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


def _step(slices: Sequence[Slice], positions: np.ndarray) -> np.ndarray:
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
