"""Scans read slice by slice into a file, where their format has slices that lie one by one."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from pyro_stitchnet.data.scans.common import refusing, without_warnings
from pyro_stitchnet.data.scans.dicom import open_series
from pyro_stitchnet.data.scans.readers import AGAIN, PICTURES, read_volume
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.data.scans.volume import Volume, to_axial

__all__ = ["read_stack"]

NIFTI = (".nii", ".nii.gz")
OTHERS = (*NIFTI, *PICTURES, ".nrrd", ".nhdr", ".mha", ".mhd", ".npy")


def read_stack(path: Path, spool: Path, *, series: str | None = None) -> Stack:
    """Read a scan as :func:`~pyro_stitchnet.data.scans.readers.read_volume` does, for little memory.

    DICOM series and NIfTI files whose last axis runs from feet to head, or back, are read one slice
    at a time into the file ``spool``. All others are read whole, and held in memory.

    Args:
        path: a file, or a DICOM folder.
        spool: a file to write slices to; theirs is the caller to remove.
        series: which SeriesInstanceUID of a DICOM folder that holds several.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a file is unreadable, or holds no scan; the message names it.
    """
    name = path.name.lower()
    if path.is_dir() or not name.endswith(OTHERS):
        opened = open_series(path, series)
        if _along_slices(opened.affine):
            planes = (plane.T for plane in opened.slices())
            read = _spooled(planes, opened.shape, opened.affine, path, spool, opened.hounsfield)
        else:
            read = Stack.of(read_volume(path, series=series))
        return replace(read, files=opened.series.files)
    if name.endswith(NIFTI) and path.exists():
        with refusing(path, AGAIN), without_warnings():
            image = nib.load(path, keep_file_open=True)  # a packed file is unpacked only once
        if isinstance(image, nib.spatialimages.SpatialImage):
            affine, shape = np.asarray(image.affine), image.shape
            # What is no volume is refused by who reads it whole.
            if len(shape) == 3 and 0 not in shape and _along_slices(affine):
                return _spooled(_planes(image, path), shape, affine, path, spool, False)
    return Stack.of(read_volume(path, series=series))


def _along_slices(affine: np.ndarray) -> bool:
    """Whether the last axis is the one from feet to head."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return False
    return bool(nib.orientations.io_orientation(affine)[2, 0] == 2)


def _planes(image: nib.spatialimages.SpatialImage, path: Path) -> Iterator[np.ndarray]:
    for k in range(image.shape[2]):
        with refusing(path, AGAIN), without_warnings():
            plane = np.asarray(image.dataobj[..., k]).astype(np.float32)
        yield plane


def _spooled(
    planes: Iterable[np.ndarray],
    shape: tuple[int, ...],
    affine: np.ndarray,
    path: Path,
    spool: Path,
    hounsfield: bool,
) -> Stack:
    """Planes (I, J), turned to axial slices, on disk."""
    least, largest = np.inf, -np.inf
    kept: Spool | None = None
    for plane in planes:
        # A volume of one slice refuses what is no volume, and knows its orientation.
        one = Volume(plane[..., None], affine, hounsfield, path)
        grey = to_axial(one.voxels, affine)[0]
        if not np.isfinite(grey).all():
            raise ValueError(
                f"{path}: some grey values are infinite or not a number; set them to that of air"
            )
        kept = kept or Spool(spool, grey.shape, np.float32)
        kept.append(grey)
        least, largest = min(least, float(grey.min())), max(largest, float(grey.max()))
    assert kept is not None
    if nib.orientations.io_orientation(affine)[2, 1] < 0:
        kept.reverse()
    return Stack(
        kept,
        tuple(shape),
        affine,
        one.axial_spacing(),
        hounsfield or least < -200,
        (least, largest),
        path,
    )
