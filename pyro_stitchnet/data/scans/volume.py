"""A scan: its voxels, where they lie in the patient, and where it came from."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

__all__ = ["Volume", "axial_affine", "from_axial", "to_axial"]

# Slices from feet to head, rows from front to back, columns from the patient's right to left: the
# radiological view, the patient's right on the picture's left.
AXIAL = ("S", "P", "L")


@dataclass(frozen=True)
class Volume:
    """One scan, or one slice of it, on the grid that its file has.

    Attributes:
        voxels: grey values (I, J, K), in Hounsfield units where ``hounsfield``.
        affine: voxel indices (i, j, k, 1) to millimetres, RAS+ as in nibabel, (4, 4).
        hounsfield: whether grey values are Hounsfield units (DICOM and most volumes are; PNG is
            not).
        source: the file or folder.
        patient: whose scan it is; "" where the file does not say.
        study: which of the patient's studies; "" where the file does not say.
    """

    voxels: np.ndarray
    affine: np.ndarray
    hounsfield: bool
    source: Path
    patient: str = ""
    study: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no volume."""
        if self.voxels.ndim != 3 or 0 in self.voxels.shape:
            raise ValueError(
                f"{self.source}: a volume has three axes, all longer than 0, not shape "
                f"{self.voxels.shape}; give one channel and one time point"
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError(f"{self.source}: its affine is not a finite 4x4 matrix")
        if abs(np.linalg.det(self.affine[:3, :3])) < 1e-9:
            raise ValueError(f"{self.source}: its affine is singular (a spacing of 0?)")

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring voxels along each axis, in mm."""
        return tuple(float(v) for v in nib.affines.voxel_sizes(self.affine))

    def axial(self) -> np.ndarray:
        """The voxels as axial slices, see :func:`to_axial`."""
        return to_axial(self.voxels, self.affine)

    def axial_spacing(self) -> tuple[float, ...]:
        """Distances in mm between slices, rows and columns of :meth:`axial`."""
        order = np.argsort(_to_axial_orientation(self.affine)[:, 0])
        return tuple(self.spacing[i] for i in order)


def to_axial(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn a grid (I, J, K) into slices (S, R, C): feet to head, front to back, right to left.

    Axes are exchanged and flipped, values never interpolated: an oblique scan is shown along its
    own axes, the nearest ones being taken.
    """
    turned: np.ndarray = nib.orientations.apply_orientation(array, _to_axial_orientation(affine))
    return turned


def from_axial(slices: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The inverse of :func:`to_axial`: slices (S, R, C) to the grid (I, J, K) of ``affine``."""
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(AXIAL), nib.orientations.io_orientation(affine)
    )
    grid: np.ndarray = nib.orientations.apply_orientation(slices, back)
    return grid


def axial_affine(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """The affine of slices (S, R, C) that lie as :func:`to_axial` would turn them.

    Args:
        spacing: of slices, rows and columns, in mm.
    """
    between, row, column = spacing
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = between, -row, -column, 1
    return affine


def _to_axial_orientation(affine: np.ndarray) -> np.ndarray:
    """What nibabel is to do to each axis of the grid."""
    turn: np.ndarray = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(AXIAL)
    )
    return turn
