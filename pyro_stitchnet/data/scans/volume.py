"""A scan in memory: its voxels, their place in the patient, and its source."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

__all__ = [
    "Volume",
    "along_body",
    "axial_affine",
    "axial_spacing",
    "check_affine",
    "from_axial",
    "to_axial",
]

# Slices from feet to head, rows from front to back, columns from the patient's right to left: the
# radiological view, with the patient's right on the left of the image.
AXIAL = ("S", "P", "L")

SPACING = (0.01, 100.0)
"""Distances between neighbouring voxels that a scan of the chest may have, mm."""

FARTHEST = 1e5
"""The largest coordinate of a scan's first voxel, mm."""

FLATTEST = 1e-3
"""The least volume of a voxel, as a share of that with the same edges at right angles."""


@dataclass(frozen=True)
class Volume:
    """One scan, or one slice of it, on the grid of its file.

    Attributes:
        voxels: grey values (I, J, K), in Hounsfield units where ``hounsfield``.
        affine: voxel indices (i, j, k, 1) to millimetres, RAS+ as in nibabel, (4, 4).
        hounsfield: whether grey values are Hounsfield units, as in DICOM and most volumes.
        source: the file or folder.
        study: which of the patient's studies; "" where the file does not name it.
        spaced: whether the file states the distances between voxels; if not, they are 1.
        scale: the grey values of black and white, where the format fixes them; else None.
        warnings: doubts about what the file states, in sentences.
        nifti: the geometry of a NIfTI file as it states it, see
            :class:`~pyro_stitchnet.data.scans.nifti_geometry.NiftiGeometry`; else empty.

    Raises:
        ValueError: ``voxels`` does not have three axes or is empty, or ``affine`` is not valid,
            see :func:`check_affine`.
    """

    voxels: np.ndarray
    affine: np.ndarray
    hounsfield: bool
    source: Path
    study: str = ""
    spaced: bool = True
    scale: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
    nifti: bytes = b""

    def __post_init__(self) -> None:
        """Check shape and affine."""
        if self.voxels.ndim != 3 or 0 in self.voxels.shape:
            raise ValueError(
                f"{self.source}: a volume has three axes, all longer than 0, not shape "
                f"{self.voxels.shape}; give one channel and one time point"
            )
        check_affine(self.affine, self.source)

    def axial(self) -> np.ndarray:
        """Return the voxels as axial slices, see :func:`to_axial`."""
        return to_axial(self.voxels, self.affine)


def check_affine(affine: np.ndarray, source: Path) -> None:
    """Refuse an affine that no scan of the chest has.

    Args:
        affine: voxel indices to mm, RAS+.
        source: the file or folder.

    Raises:
        ValueError: it is not a finite, invertible 4x4 matrix, the distances between neighbouring
            voxels are not within :data:`SPACING`, or the first voxel lies beyond :data:`FARTHEST`.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"{source}: its affine is not a finite 4x4 matrix; correct its geometry")
    with np.errstate(all="ignore"):  # of numbers such as 1e300
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        share = abs(np.linalg.det(affine[:3, :3] / sizes))
    shown = " x ".join(f"{size:.3g}" for size in sizes)
    if not sizes.all() or share < FLATTEST:
        raise ValueError(
            f"{source}: its affine is singular (voxels of {shown} mm); correct its geometry"
        )
    if not (SPACING[0] <= sizes.min() and sizes.max() <= SPACING[1]):
        raise ValueError(
            f"{source}: its voxels are {shown} mm apart, but those of a scan are {SPACING[0]} to "
            f"{SPACING[1]:.0f} mm apart; correct its spacing, or the unit of its spacing"
        )
    if np.abs(affine[:3, 3]).max() > FARTHEST:
        raise ValueError(
            f"{source}: its first voxel lies {np.abs(affine[:3, 3]).max():.3g} mm from the origin; "
            "correct its geometry"
        )


def along_body(affine: np.ndarray, axis: int) -> bool:
    """Return whether an axis of a grid runs between feet and head, up or down."""
    return bool(nib.orientations.io_orientation(affine)[axis, 0] == 2)


def to_axial(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn a grid (I, J, K) into slices (S, R, C): feet to head, front to back, right to left.

    Axes are exchanged and flipped, values never interpolated: the slices of an oblique scan lie
    along those of its own axes that are nearest to the patient's.
    """
    turned: np.ndarray = nib.orientations.apply_orientation(array, _to_axial_orientation(affine))
    return turned


def from_axial(slices: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn slices (S, R, C) back to the grid (I, J, K) of ``affine``; inverts :func:`to_axial`."""
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(AXIAL), nib.orientations.io_orientation(affine)
    )
    grid: np.ndarray = nib.orientations.apply_orientation(slices, back)
    return grid


def axial_spacing(affine: np.ndarray) -> tuple[float, ...]:
    """Return the distances in mm between the slices, rows and columns of :func:`to_axial`."""
    order = np.argsort(_to_axial_orientation(affine)[:, 0])
    sizes = nib.affines.voxel_sizes(affine)
    return tuple(float(sizes[axis]) for axis in order)


def axial_affine(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Return the affine of a grid (S, R, C) that :func:`to_axial` leaves as it is.

    Args:
        spacing: of slices, rows and columns, in mm.
    """
    between, row, column = spacing
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = between, -row, -column, 1
    return affine


def _to_axial_orientation(affine: np.ndarray) -> np.ndarray:
    """Return nibabel's orientation (3, 2): the new place and direction of each axis."""
    turn: np.ndarray = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(AXIAL)
    )
    return turn
