"""The one way to read a scan: as a stack of axial slices, streamed where the format allows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from pyro_stitchnet.data.scans.common import (
    check_finite,
    looks_hounsfield,
    reading,
    without_warnings,
)
from pyro_stitchnet.data.scans.dicom import open_series
from pyro_stitchnet.data.scans.endings import NIFTI_ENDINGS
from pyro_stitchnet.data.scans.images import read_grey_image, read_images
from pyro_stitchnet.data.scans.readers import AGAIN, check_exists, is_dicom_path, read_volume
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.data.scans.volume import axial_affine, axial_spacing, to_axial

__all__ = ["read_stack"]


def read_stack(
    path: Path | Sequence[Path], spool: Path | None = None, *, series: str | None = None
) -> Stack:
    """Read a scan of any format of :func:`~pyro_stitchnet.data.scans.readers.read_volume`.

    With ``spool``, sequences of images, and DICOM series and NIfTI files whose last axis runs
    along the body, are read one slice at a time into that file. Other scans are held in memory.

    Args:
        path: a file, a DICOM folder, or the image files of one scan.
        spool: the file to write slices to, which the caller removes; None keeps them in memory.
        series: SeriesInstanceUID, for a DICOM folder that holds several series.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a file is unreadable, or holds no scan; the message names it.
    """
    check_exists(path, series)
    if is_dicom_path(path):
        opened = open_series(path, series)
        if spool and _along_body(opened.affine):
            planes = (plane.T for plane in opened.slices())
            stack = _spool_planes(planes, opened.shape, opened.affine, path, spool)
            hounsfield = opened.hounsfield or stack.hounsfield
            stack = replace(stack, hounsfield=hounsfield, study=opened.series.study)
        else:
            stack = Stack.of(opened.volume())
        return replace(stack, files=opened.series.files)
    if not isinstance(path, Path):
        return _images(path, spool) if spool else Stack.of(read_volume(path))
    if spool and path.name.lower().endswith(NIFTI_ENDINGS):
        with reading(path, AGAIN), without_warnings():
            image = nib.load(path, keep_file_open=True)  # else each slice unpacks a .gz anew
        if isinstance(image, nib.spatialimages.SpatialImage):
            affine, shape = np.asarray(image.affine), image.shape
            # read_volume refuses what is no volume.
            if len(shape) == 3 and 0 not in shape and _along_body(affine):
                return _spool_planes(_planes(image, path), shape, affine, path, spool)
    return Stack.of(read_volume(path, series=series))


def _along_body(affine: np.ndarray) -> bool:
    """Return whether the last axis of a grid runs between feet and head."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return False
    return bool(nib.orientations.io_orientation(affine)[2, 0] == 2)


def _planes(image: nib.spatialimages.SpatialImage, path: Path) -> Iterator[np.ndarray]:
    for k in range(image.shape[2]):
        with reading(path, AGAIN), without_warnings():
            plane = np.asarray(image.dataobj[..., k]).astype(np.float32)
        yield plane


def _spool_planes(
    planes: Iterable[np.ndarray],
    shape: tuple[int, ...],
    affine: np.ndarray,
    path: Path,
    spool: Path,
) -> Stack:
    """Write planes (I, J) of a grid, in the order of its last axis, to a file."""
    slices = (to_axial(plane[..., None], affine)[0] for plane in planes)
    stored, values = _spooled(slices, path, spool)
    if nib.orientations.io_orientation(affine)[2, 1] < 0:
        stored.reverse()
    hounsfield = looks_hounsfield(np.array(values))
    return Stack(stored, tuple(shape), affine, axial_spacing(affine), hounsfield, values, path)


def _images(paths: Sequence[Path], spool: Path) -> Stack:
    source = paths[0].parent
    stored, values = _spooled(read_images(paths, read_grey_image), source, spool)
    shape = (len(stored), *stored.shape)
    return Stack(stored, shape, axial_affine(), (1.0, 1.0, 1.0), False, values, source)


def _spooled(
    slices: Iterable[np.ndarray], source: Path, spool: Path
) -> tuple[Spool, tuple[float, float]]:
    """Write slices to a file; return them with their smallest and largest grey value."""
    smallest, largest = np.inf, -np.inf
    stored: Spool | None = None
    for one in slices:
        check_finite(one, source)
        if stored is None:
            stored = Spool(spool, one.shape, np.float32)
        stored.append(one)
        smallest, largest = min(smallest, float(one.min())), max(largest, float(one.max()))
    assert stored is not None
    return stored, (smallest, largest)
