"""The slices of one DICOM series: their headers, and the affine of the grid they form."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from pyro_stitchnet.data.scans.common import LONGEST_AXIS, reading
from pyro_stitchnet.data.scans.volume import SPACING

__all__ = [
    "CT_MODALITIES",
    "MEND",
    "TAGS",
    "DicomSlice",
    "parse_header",
    "series_affine",
    "text_of",
]

CT_MODALITIES = ("CT", "")
"""Values of Modality of a CT; a header without the tag counts as CT."""

TAGS = [
    *("ImageType", "SOPClassUID", "Modality", "PhotometricInterpretation", "NumberOfFrames"),
    *("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "StudyInstanceUID", "PatientID"),
    *("SOPInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber"),
    *("SliceThickness", "SpacingBetweenSlices", "PixelSpacing", "Rows", "Columns"),
    *("RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleType", "BitsAllocated", "BitsStored", "HighBit"),
    "PixelRepresentation",  # pydicom needs it to read the sign of padding values
    "LossyImageCompression",
]
"""The tags that are read from a header."""

HOUNSFIELD_TYPES = ("", "HU", "HU_MOD", "HOUNSFIELD", "HOUNSFIELD UNITS", "US")
"""Values of RescaleType of Hounsfield units, in capitals; US, unspecified, is common in processed
series."""

LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
"""Transfer syntaxes that lose details; of JPEG 2000 a tag says so."""

MEND = "correct its tags, or export the series again"
"""The remedy for tags that no slice of a CT has."""


@dataclass(frozen=True)
class DicomSlice:
    """The header of one file.

    Attributes:
        file: the file.
        shape: rows, columns.
        spacing: between rows and between columns, mm, (2,).
        directions: unit vectors along a row and down a column, LPS, (2, 3).
        position: of the first voxel, LPS, mm, (3,); None where the tag is missing.
        number: InstanceNumber; None where the tag is missing.
        thickness: distance to the next slice in mm; 0 where no tag gives it.
        rescale: slope and intercept; None without RescaleIntercept.
        padding: the first and last stored value that mark padding; None without padding.
        bits: BitsStored and PixelRepresentation.
        lossy: whether the pixels were compressed with losses.
    """

    file: Path
    shape: tuple[int, int]
    spacing: np.ndarray
    directions: np.ndarray
    position: np.ndarray | None
    number: int | None
    thickness: float
    rescale: tuple[float, float] | None
    padding: tuple[int, int] | None
    bits: tuple[int, int]
    lossy: bool

    @property
    def normal(self) -> np.ndarray:
        """The slice's unit normal, LPS, (3,)."""
        return np.cross(*self.directions)

    @property
    def height(self) -> float:
        """The place along the normal by which slices are sorted."""
        if self.position is not None:
            return float(self.position @ self.normal)
        return float(self.number or 0)


def text_of(header: Dataset, tag: str) -> str:
    """Return a tag as text; "" where it is missing."""
    return str(header.get(tag) or "")


def parse_header(file: Path, header: Dataset) -> DicomSlice:
    """Parse the header of a file.

    Raises:
        ValueError: the file is not a slice of a CT, or a tag is missing or malformed.
    """
    with reading(file, "fetch it again or remove it"):
        if flaw := _flaw(header):
            raise ValueError(f"{file}: {flaw}")
        orientation = header.get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0)
        position = header.get("ImagePositionPatient")
        number = header.get("InstanceNumber")
        intercept, slope = header.get("RescaleIntercept"), header.get("RescaleSlope")
        padding = header.get("PixelPaddingValue")
        limit = header.get("PixelPaddingRangeLimit", padding)
        spacing = header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 0
        parsed = DicomSlice(
            file,
            (int(header.Rows), int(header.Columns)),
            np.array(header.get("PixelSpacing") or (0, 0), float).reshape(2),
            np.array(orientation, float).reshape(2, 3),
            None if not position else np.array(position, float).reshape(3),
            None if number is None else int(number),
            abs(float(spacing)),
            None
            if intercept is None
            else (1.0 if slope is None else float(slope), float(intercept)),
            None if padding is None else (min(padding, limit), max(padding, limit)),
            (int(header.get("BitsStored", 0)), int(header.get("PixelRepresentation", 0))),
            header.get("LossyImageCompression") == "01" or _transfer_syntax(header) in LOSSY,
        )
    if flaw := _bad_number(parsed):
        raise ValueError(f"{file}: {flaw}; {MEND}")
    return parsed


def series_affine(slices: Sequence[DicomSlice]) -> np.ndarray:
    """Return the affine (4, 4), LPS, of voxels (columns, rows, slices).

    Args:
        slices: sorted by their height.

    Raises:
        ValueError: slices are missing or do not fit together; the message names a file.
    """
    from highdicom.spatial import create_affine_matrix_from_attributes  # half a second to import

    middle = slices[len(slices) // 2]  # a stray slice is more likely at an end
    for one in slices:
        if one.shape != middle.shape:
            raise ValueError(
                f"{one.file}: is {one.shape}, but {middle.file.name} of the same series "
                f"{middle.shape}; move the slices of another size elsewhere"
            )
        if one.bits != middle.bits:
            raise ValueError(
                f"{one.file}: has another BitsStored or PixelRepresentation than "
                f"{middle.file.name} of the same series; {MEND}"
            )
        if not (
            np.allclose(one.directions, middle.directions, atol=1e-3)
            and np.allclose(one.spacing, middle.spacing, rtol=1e-3)
        ):
            raise ValueError(
                f"{one.file}: has another orientation or pixel spacing than {middle.file.name} of "
                "the same series; move the slices that do not belong to it elsewhere"
            )
    if not np.allclose(middle.directions @ middle.directions.T, np.eye(2), atol=1e-2):
        raise ValueError(
            f"{middle.file}: its ImageOrientationPatient is not a pair of perpendicular unit "
            f"vectors; {MEND}"
        )
    positions = _positions(slices)
    step = _step(slices, positions)
    with reading(middle.file, MEND):
        affine = create_affine_matrix_from_attributes(
            positions[0].tolist(), middle.directions.flatten().tolist(), middle.spacing.tolist()
        )
    affine[:3, 2] = step  # not along the normal where the gantry was tilted
    return affine


def _flaw(header: Dataset) -> str:
    """Return why a slice cannot be read; "" if it can."""
    if header.get("Modality", "") not in CT_MODALITIES:
        return f"is of modality {header.Modality}; choose a CT series"
    many = int(header.get("NumberOfFrames") or 1) > 1
    if many or header.get("SOPClassUID") == EnhancedCTImageStorage:
        return "holds many frames in one file (enhanced CT); convert it to NIfTI, as by dcm2niix"
    if header.get("PhotometricInterpretation", "MONOCHROME2") != "MONOCHROME2":
        return (
            f"has {header.PhotometricInterpretation} pixels, not MONOCHROME2; it is not a CT slice"
        )
    if not header.get("PixelSpacing"):
        return "gives no PixelSpacing; add the tag, or export the series again with it"
    if text_of(header, "RescaleType").strip().upper() not in HOUNSFIELD_TYPES:
        return (
            f"holds values of RescaleType {header.RescaleType}, not Hounsfield units; choose the "
            "series of CT numbers"
        )
    stored = header.get("BitsStored")
    if stored is not None and not (
        0 < stored <= header.get("BitsAllocated", stored)
        and header.get("HighBit", stored - 1) == stored - 1
    ):
        return f"its BitsAllocated, BitsStored and HighBit contradict each other; {MEND}"
    return ""


def _bad_number(one: DicomSlice) -> str:
    """Return the numbers of a header that no slice of a CT has; "" if all may be right."""
    if not all(0 < side <= LONGEST_AXIS for side in one.shape):
        return f"has {one.shape[0]} Rows and {one.shape[1]} Columns, not 1 to {LONGEST_AXIS}"
    if not all(SPACING[0] <= side <= SPACING[1] for side in one.spacing):
        shown = " x ".join(f"{side:.4g}" for side in one.spacing)
        return f"has a PixelSpacing of {shown} mm, not {SPACING[0]} to {SPACING[1]:.0f} mm"
    if one.position is not None and not np.isfinite(one.position).all():
        return "has an ImagePositionPatient that is infinite or not a number"
    if not np.isfinite(one.thickness):
        return "has a SliceThickness or SpacingBetweenSlices that is infinite or not a number"
    if one.rescale and not (np.isfinite(one.rescale).all() and one.rescale[0]):
        return f"has a RescaleSlope of {one.rescale[0]} and RescaleIntercept of {one.rescale[1]}"
    return ""


def _transfer_syntax(header: Dataset) -> str:
    return str(header.file_meta.get("TransferSyntaxUID", "")) if header.file_meta else ""


def _positions(slices: Sequence[DicomSlice]) -> np.ndarray:
    """Return the positions of the slices' first voxels, (S, 3)."""
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


def _step(slices: Sequence[DicomSlice], positions: np.ndarray) -> np.ndarray:
    """Return the vector from one slice to the next, mm, (3,).

    highdicom.spatial.get_volume_positions cannot be used: it refuses a tilted gantry, and does not
    name the slice at fault.
    """
    normal = slices[0].normal
    if len(slices) == 1:
        return normal * (slices[0].thickness or 1.0)
    steps = np.diff(positions, axis=0)
    usual = np.median(steps, axis=0)
    for step, one, following in zip(steps, slices, slices[1:], strict=False):
        if step @ normal < 1e-3:
            raise ValueError(
                f"{following.file}: has the position of {one.file.name}; keep one of the two, or "
                "separate the scans that share the series"
            )
        if not np.linalg.norm(step - usual) <= 0.1 * np.linalg.norm(usual):
            raise ValueError(
                f"{one.file}: the next slice, {following.file.name}, lies {step @ normal:.4g} mm "
                f"further, others {usual @ normal:.4g} mm: slices are missing or unevenly spaced; "
                "fetch the whole series, or resample it evenly"
            )
    mean: np.ndarray = (positions[-1] - positions[0]) / (len(slices) - 1)
    return mean
