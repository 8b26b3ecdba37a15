"""Masks, brought onto the slices of their scan."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from pyro_stitchnet.data.scans.common import reading, without_warnings
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import to_axial

__all__ = ["read_mask"]

ON_GRID = "export the mask on the scan's grid"

OFF_GRID = 0.1
"""The largest distance of a mask's voxel from the scan's, in voxels."""


def read_mask(path: Path | Sequence[Path], *, like: Stack) -> np.ndarray:
    """Read a mask as axial slices of its scan, uint8 (S, R, C).

    All formats of :func:`~pyro_stitchnet.data.scans.readers.read_volume`; images must be 8-bit
    grey or have a palette, whose indices are then the values. Where the mask's axes differ from
    the scan's in order or direction, they are exchanged and flipped; nothing is resampled.

    Args:
        path: the mask's file, DICOM folder or images.
        like: the scan.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: the mask is unreadable, lies on another grid, or holds other values than whole
            numbers of 0 to 255; the message names it.
    """
    mask = read_volume(path, mask=True)
    values = _whole_numbers(mask.voxels, mask.source)
    with without_warnings(), reading(mask.source, ON_GRID):
        to_scan = np.linalg.inv(like.affine) @ mask.affine  # from the mask's indices to the scan's
        turn = nib.orientations.io_orientation(to_scan)
        turned = nib.orientations.apply_orientation(values, turn)
        to_scan = to_scan @ nib.orientations.inv_ornt_aff(turn, values.shape)
    if turned.shape != like.shape:
        raise ValueError(
            f"{mask.source}: the mask is {values.shape}, its scan {like.source} {like.shape}; "
            f"{ON_GRID}"
        )
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(turned.shape) - 1)
    if not np.abs(apply_affine(to_scan, corners) - corners).max() < OFF_GRID:
        raise ValueError(
            f"{mask.source}: the mask lies elsewhere than its scan {like.source}: their origins, "
            f"spacings or orientations differ; {ON_GRID}"
        )
    return to_axial(turned, like.affine)


def _whole_numbers(voxels: np.ndarray, source: Path) -> np.ndarray:
    """Return voxels as uint8, plane by plane: float copies of the whole mask would be large."""
    values = np.empty_like(voxels, np.uint8)
    slowest = int(np.argmax(voxels.strides))
    planes, stored = np.moveaxis(voxels, slowest, 0), np.moveaxis(values, slowest, 0)
    for k, plane in enumerate(planes):
        rounded = np.round(plane)
        if np.abs(rounded - plane).max() > 1e-3 or rounded.min() < 0 or rounded.max() > 255:
            raise ValueError(
                f"{source}: a mask holds whole numbers of 0 to 255, not {voxels.min():g} to "
                f"{voxels.max():g}; export it as a label map"
            )
        stored[k] = rounded
    return values
