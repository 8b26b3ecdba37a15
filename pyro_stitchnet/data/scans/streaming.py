"""The one way to read a scan: as a stack of axial slices, streamed where the format allows."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from pyro_stitchnet.data.scans.common import check_finite, looks_hounsfield
from pyro_stitchnet.data.scans.dicom import open_series
from pyro_stitchnet.data.scans.images import read_grey_image, read_images
from pyro_stitchnet.data.scans.readers import (
    GREY_SCALE,
    check_exists,
    is_dicom_path,
    is_image_path,
    open_volume,
    read_volume,
)
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.data.scans.volume import (
    along_body,
    axial_affine,
    axial_spacing,
    to_axial,
)

__all__ = ["read_stack"]


def read_stack(
    path: Path | Sequence[Path], spool: Path | None = None, *, series: str | None = None
) -> Stack:
    """Read a scan of any format of :func:`~pyro_stitchnet.data.scans.readers.read_volume`.

    With ``spool``, sequences of image files, and other scans whose file holds one axial slice after
    the other, are read one slice at a time into that file. Other scans are held in memory.

    Args:
        path: a file, a DICOM folder, several folders of one series, or the image files of one scan.
        spool: the file to write slices to, which the caller removes; None keeps them in memory.
        series: SeriesInstanceUID, for a DICOM folder that holds several series.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a file is unreadable, or holds no scan; the message names it.
    """
    check_exists(path, series)
    if is_dicom_path(path):
        opened = open_series(path, series)
        if spool and along_body(opened.affine, 2):
            planes = (plane.T for plane in opened.slices())
            stack = _spool_planes(planes, opened.shape, opened.affine, opened.source, spool)
            hounsfield = opened.hounsfield or stack.hounsfield
            study, spaced = opened.series.study, opened.spaced
            stack = replace(stack, hounsfield=hounsfield, study=study, spaced=spaced)
        else:
            stack = Stack.of(opened.volume())
        return replace(stack, files=opened.series.files)
    if is_image_path(path):
        return _images(path, spool) if spool else Stack.of(read_volume(path))
    assert isinstance(path, Path)
    stored = open_volume(path)
    if not (spool and stored.streams):
        return Stack.of(stored.volume())
    stack = _spool_planes(stored.planes(), stored.shape, stored.affine, path, spool, stored.slowest)
    return replace(stack, spaced=stored.spaced, warnings=stored.warnings, nifti=stored.nifti)


def _spool_planes(
    planes: Iterable[np.ndarray],
    shape: tuple[int, ...],
    affine: np.ndarray,
    path: Path,
    spool: Path,
    axis: int = 2,
) -> Stack:
    """Write the planes of a grid, in the order of the axis that runs along the body, to a file."""
    slices = (to_axial(np.expand_dims(plane, axis), affine)[0] for plane in planes)
    stored, values = _spooled(slices, path, spool)
    if nib.orientations.io_orientation(affine)[axis, 1] < 0:
        stored.reverse()
    hounsfield = looks_hounsfield(np.array(values))
    return Stack(stored, tuple(shape), affine, axial_spacing(affine), hounsfield, values, path)


def _images(path: Path | Sequence[Path], spool: Path) -> Stack:
    paths = [path] if isinstance(path, Path) else path
    source = path if isinstance(path, Path) else path[0].parent
    images = read_images(paths, read_grey_image)
    slices: Sequence[np.ndarray] | np.ndarray
    if len(paths) == 1:  # needs no file
        slices = np.stack(list(images))
        check_finite(slices, source)
        values = float(slices.min()), float(slices.max())
    else:
        slices, values = _spooled(images, source, spool)
    return Stack(
        slices,
        (len(slices), *slices[0].shape),
        axial_affine(),
        (1.0, 1.0, 1.0),
        False,
        values,
        source,
        spaced=False,
        scale=GREY_SCALE,
    )


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
