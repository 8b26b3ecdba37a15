"""A scan in memory: its voxels, their place in the patient, and its source."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

__all__ = ["Volume", "axial_affine", "axial_spacing", "from_axial", "to_axial"]

# Slices from feet to head, rows from front to back, columns from the patient's right to left: the
# radiological view, with the patient's right on the left of the image.
AXIAL = ("S", "P", "L")


@dataclass(frozen=True)
class Volume:
    """One scan, or one slice of it, on the grid of its file.

    Attributes:
        voxels: grey values (I, J, K), in Hounsfield units where ``hounsfield``.
        affine: voxel indices (i, j, k, 1) to millimetres, RAS+ as in nibabel, (4, 4).
        hounsfield: whether grey values are Hounsfield units, as in DICOM and most volumes.
        source: the file or folder.
        study: which of the patient's studies; "" where the file does not name it.

    Raises:
        ValueError: ``voxels`` has not three axes or is empty, or ``affine`` is not a finite,
            invertible 4x4 matrix.
    """

    voxels: np.ndarray
    affine: np.ndarray
    hounsfield: bool
    source: Path
    study: str = ""

    def __post_init__(self) -> None:
        """Check shape and affine."""
        if self.voxels.ndim != 3 or 0 in self.voxels.shape:
            raise ValueError(
                f"{self.source}: a volume has three axes, all longer than 0, not shape "
                f"{self.voxels.shape}; give one channel and one time point"
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError(f"{self.source}: its affine is not a finite 4x4 matrix")
        if abs(np.linalg.det(self.affine[:3, :3])) < 1e-9:
            raise ValueError(f"{self.source}: its affine is singular (a spacing of 0?)")

    def axial(self) -> np.ndarray:
        """Return the voxels as axial slices, see :func:`to_axial`."""
        return to_axial(self.voxels, self.affine)


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
