"""Masks, brought onto the slices of their scan."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from pyro_stitchnet.data.scans.common import reading, without_warnings
from pyro_stitchnet.data.scans.nifti_geometry import SAME_PLACE, NiftiGeometry, distance
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume, to_axial

__all__ = ["read_mask"]

ON_GRID = "export the mask on the scan's grid"

UNTURNED = np.array([[0, 1], [1, 1], [2, 1]])
"""nibabel's orientation of axes that stay as they are."""


def read_mask(path: Path | Sequence[Path], *, like: Stack) -> np.ndarray:
    """Read a mask as axial slices of its scan, uint8 (S, R, C).

    All formats of :func:`~pyro_stitchnet.data.scans.readers.read_volume`; images must be 8-bit
    grey or have a palette, whose indices are then the values. Where the mask's axes differ from
    the scan's in order or direction, they are exchanged and flipped; nothing is resampled.

    NIfTI files may state two positions of their voxels, see
    :mod:`~pyro_stitchnet.data.scans.nifti_geometry`. If the mask does not fit its scan, the other
    positions are tried, because another program may have written the mask.

    Args:
        path: the mask's file, DICOM folder or images.
        like: the scan.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: the mask is unreadable, lies on another grid, or has values that are not whole
            numbers from 0 to 255; the message names it.
    """
    mask = read_volume(path, mask=True)
    values = _whole_numbers(mask.voxels, mask.source)
    with without_warnings(), reading(mask.source, ON_GRID):
        turns = _turns(mask, like)
    if not turns and sorted(values.shape) != sorted(like.shape):
        raise ValueError(
            f"{mask.source}: the mask is {values.shape}, its scan {like.source} {like.shape}; "
            f"{ON_GRID}"
        )
    if not turns:
        raise ValueError(
            f"{mask.source}: the mask {values.shape} lies elsewhere than its scan {like.source} "
            f"{like.shape}: their shapes, origins, spacings or orientations differ; {ON_GRID}"
        )
    if len(turns) > 1:
        raise ValueError(
            f"{mask.source}: the mask fits its scan {like.source} in several ways, because the "
            "sform and the qform of a NIfTI header differ; make them agree in both files"
        )
    return to_axial(nib.orientations.apply_orientation(values, turns[0]), like.affine)


def _turns(mask: Volume, like: Stack) -> list[np.ndarray]:
    """Return the different turns, nibabel's orientations, that bring a mask onto its scan.

    The order of axes that both files share needs no choice, if their affines agree.
    """
    turns: list[np.ndarray] = []
    of_scans = (like.affine, *_others(like.nifti))
    of_masks = (mask.affine, *_others(mask.nifti))
    for number, (of_scan, of_mask) in enumerate(itertools.product(of_scans, of_masks)):
        to_scan = np.linalg.inv(of_scan) @ of_mask  # from the mask's indices to the scan's
        turn = nib.orientations.io_orientation(to_scan)
        shape = tuple(mask.voxels.shape[axis] for axis in np.argsort(turn[:, 0]))
        turned = of_mask @ nib.orientations.inv_ornt_aff(turn, mask.voxels.shape)
        if shape != like.shape or not distance(of_scan, turned, shape) < SAME_PLACE:
            continue
        if number == 0 and (turn == UNTURNED).all():
            return [turn]
        if not any((turn == other).all() for other in turns):
            turns.append(turn)
    return turns


def _others(nifti: bytes) -> tuple[np.ndarray, ...]:
    return NiftiGeometry.from_block(nifti).others if nifti else ()


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
