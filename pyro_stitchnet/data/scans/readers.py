"""Scans read whole into memory: DICOM, NIfTI, NRRD, MetaImage, NumPy arrays and image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

import nibabel as nib
import numpy as np

from pyro_stitchnet.data.scans.common import (
    LPS_TO_RAS,
    check_finite,
    looks_hounsfield,
    reading,
    without_warnings,
)
from pyro_stitchnet.data.scans.dicom import open_series
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS
from pyro_stitchnet.data.scans.images import read_grey_image, read_images, read_mask_image
from pyro_stitchnet.data.scans.volume import Volume, axial_affine

__all__ = ["check_exists", "is_dicom_path", "read_volume"]

AGAIN = "fetch or export it again"


def read_volume(
    path: Path | Sequence[Path], *, series: str | None = None, mask: bool = False
) -> Volume:
    """Read one scan or mask, float32 on the grid of its file.

    - A folder, ``.dcm`` or a file without a known ending: DICOM, see
      :func:`~pyro_stitchnet.data.scans.dicom.open_series`.
    - ``.nii``, ``.nii.gz`` (NIfTI), ``.nrrd``, ``.nhdr`` (NRRD), ``.mha``, ``.mhd`` (MetaImage):
      axes, spacing and orientation as in the file.
    - ``.npy``: slices (S, R, C) or one slice (R, C) of grey values, not of bool, taken as axial,
      feet to head, front to back and the patient's right to left, voxels of 1 mm.
    - ``.png``, ``.jpg``: a grey image is one axial slice; a sequence of images of one size is the
      slices of one scan from feet to head, oriented like ``.npy``. Grey values are 0 (black) to
      255 (white).

    NIfTI, NRRD, MetaImage and NumPy files do not state their unit: they are taken to hold
    Hounsfield units if their minimum is below -200. Images never are. Only DICOM names the study.

    Args:
        path: a file, a DICOM folder, or image files. The source of image files is their folder.
        series: SeriesInstanceUID, for a DICOM folder that holds several series.
        mask: whether to read a mask: values or palette indices of an image, and arrays of bool.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a file is unreadable, or holds no scan; the message names it.
    """
    check_exists(path, series)
    if is_dicom_path(path):
        return open_series(path, series).volume()
    with without_warnings():
        read = read_mask_image if mask else read_grey_image
        if not isinstance(path, Path):
            slices = np.stack(list(read_images(path, read)))
            return Volume(slices, axial_affine(), False, path[0].parent)
        kind = _ending(path)
        if kind in IMAGE_ENDINGS:
            return Volume(read(path)[None], axial_affine(), False, path)
        voxels, affine = FORMATS[kind](path)
        if voxels.dtype == bool and not mask:
            raise ValueError(f"{path}: an array of bool is a mask, not a scan; give grey values")
        grey = voxels.astype(np.float32, copy=False)
        check_finite(grey, path)
        return Volume(grey, affine, looks_hounsfield(grey), path)


def is_dicom_path(path: Path | Sequence[Path]) -> TypeGuard[Path]:
    """Return whether :func:`read_volume` reads a path as DICOM."""
    return isinstance(path, Path) and (
        path.is_dir() or _ending(path) not in (*FORMATS, *IMAGE_ENDINGS)
    )


def check_exists(path: Path | Sequence[Path], series: str | None) -> None:
    """Refuse missing files, and a series of anything but DICOM.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: there are no files, or ``series`` is given for a format without series.
    """
    files = [path] if isinstance(path, Path) else path
    if not files:
        raise ValueError("an empty list of images: give those of at least one slice")
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: missing; give a scan's file, folder or images")
    if series is not None and not is_dicom_path(path):
        raise ValueError(f"{files[0]}: only DICOM has series; leave out series={series!r}")


def _ending(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return ".nii.gz" if suffixes == [".nii", ".gz"] else "".join(suffixes[-1:])


def _three_axes(array: np.ndarray) -> np.ndarray:
    """Drop axes of length 1 behind the third, or add the third."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return array[..., None] if array.ndim == 2 else array


def _nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with reading(path, AGAIN):
        image = nib.load(path)
        if not isinstance(image, nib.spatialimages.SpatialImage):
            raise ValueError("it holds no volume")
        return _three_axes(image.get_fdata(dtype=np.float32)), np.asarray(image.affine)


def _itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK as sitk  # slow to import, and few scans need it

    with reading(path, AGAIN):
        name = "NrrdImageIO" if _ending(path) in (".nrrd", ".nhdr") else "MetaImageIO"
        image = sitk.ReadImage(path, imageIO=name)
        if image.GetNumberOfComponentsPerPixel() != 1:
            raise ValueError("it has several channels")
        axes = image.GetDimension()
        directions = np.array(image.GetDirection()).reshape(axes, axes) * image.GetSpacing()
        used = min(axes, 3)
        affine = np.eye(4)
        affine[:used, :used] = directions[:used, :used]
        affine[:used, 3] = image.GetOrigin()[:used]
        return _three_axes(sitk.GetArrayFromImage(image).T), LPS_TO_RAS @ affine


def _numpy(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with reading(path, "save an array of numbers with numpy.save"):
        with path.open("rb") as file:
            if file.read(6) != np.lib.format.MAGIC_PREFIX:
                raise ValueError("it does not begin like a file of numpy.save")
        array = np.array(np.lib.format.open_memmap(path, mode="r"))
        if array.dtype.kind not in "biuf":
            raise ValueError(f"an array of {array.dtype}")
        return array[None] if array.ndim == 2 else array, axial_affine()


FORMATS = {
    ".nii": _nifti,
    ".nii.gz": _nifti,
    ".nrrd": _itk,
    ".nhdr": _itk,
    ".mha": _itk,
    ".mhd": _itk,
    ".npy": _numpy,
}
