"""Scans and masks from files: DICOM, NIfTI, NRRD, MetaImage, NumPy arrays and pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import apply_affine
from PIL import Image

from pyro_stitchnet.data.scans.common import (
    LPS_TO_RAS,
    looks_hounsfield,
    refusing,
    without_warnings,
)
from pyro_stitchnet.data.scans.dicom import read_series
from pyro_stitchnet.data.scans.volume import Volume, axial_affine

__all__ = ["PICTURES", "read_mask", "read_volume"]

AGAIN = "fetch or export it again"
ON_GRID = "export the mask on the scan's grid"
PICTURES = (".png", ".jpg", ".jpeg")  # as suffixes, in small letters
"""Endings of files that hold one slice as a picture."""

# How much the channels of a grey picture may differ (of 255): JPEG rounds them one by one.
GREY_NOISE = 3

# How far a mask's voxels may lie from the scan's, as a part of a voxel.
OFF_GRID = 0.1


def read_volume(path: Path | Sequence[Path], *, series: str | None = None) -> Volume:
    """Read one scan, float32 on the grid that its file has.

    - A folder, ``.dcm`` or a file without a known suffix: DICOM, see
      :func:`~pyro_stitchnet.data.scans.dicom.read_series`.
    - ``.nii``, ``.nii.gz`` (NIfTI), ``.nrrd``, ``.nhdr`` (NRRD), ``.mha``, ``.mhd`` (MetaImage):
      axes, spacing and orientation as in the file.
    - ``.npy``: slices (S, R, C) or one slice (R, C) of grey values, not of bool, taken as axial,
      feet to head, front to back and the patient's right to left, voxels of 1 mm.
    - ``.png``, ``.jpg``: a grey picture is one axial slice, a sequence of pictures of one size
      the slices of one scan from feet to head, oriented like ``.npy``. Grey values are 0 (black)
      to 255 (white), of 16-bit pictures with fractions.

    NIfTI, NRRD, MetaImage and NumPy files do not say their unit: they are taken to hold Hounsfield
    units if their minimum is below -200. Pictures never are. Only DICOM names patient and study.

    Args:
        path: a file, a DICOM folder, or pictures. Of pictures, the volume's source is their folder.
        series: which SeriesInstanceUID of a DICOM folder that holds several.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a file is unreadable, or holds no scan; the message names it.
    """
    return _read(path, mask=False, series=series)


def read_mask(path: Path | Sequence[Path], *, like: Volume) -> np.ndarray:
    """Read a mask on the grid of its scan, uint8 and of the shape of ``like.voxels``.

    All formats of :func:`read_volume`; pictures must be 8-bit grey or have a palette, whose
    indices are then the values. Where the mask's axes are in another order or direction than the
    scan's, they are exchanged and flipped; nothing is resampled.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: the mask is unreadable, lies on another grid, or holds other values than whole
            numbers of 0 to 255; the message names it.
    """
    mask = _read(path, mask=True)
    whole = np.round(mask.voxels)
    if np.abs(whole - mask.voxels).max() > 1e-3 or whole.min() < 0 or whole.max() > 255:
        raise ValueError(
            f"{mask.source}: a mask holds whole numbers of 0 to 255, not {mask.voxels.min():g} to "
            f"{mask.voxels.max():g}; export it as a label map"
        )
    with without_warnings(), refusing(mask.source, ON_GRID):
        # Where the mask's voxels lie among the scan's: as they are, then with axes exchanged.
        to_scan = np.linalg.inv(like.affine) @ mask.affine
        turn = nib.orientations.io_orientation(to_scan)
        turned = nib.orientations.apply_orientation(whole, turn)
        moved = to_scan @ nib.orientations.inv_ornt_aff(turn, whole.shape)
    if turned.shape != like.voxels.shape:
        raise ValueError(
            f"{mask.source}: the mask is {mask.voxels.shape}, its scan {like.source} "
            f"{like.voxels.shape}; {ON_GRID}"
        )
    corners = np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(turned.shape) - 1)
    if not np.abs(apply_affine(moved, corners) - corners).max() < OFF_GRID:
        raise ValueError(
            f"{mask.source}: the mask lies elsewhere than its scan {like.source}: their origins, "
            f"spacings or orientations differ; {ON_GRID}"
        )
    return turned.astype(np.uint8)


def _read(path: Path | Sequence[Path], *, mask: bool, series: str | None = None) -> Volume:
    """Any format."""
    files = [path] if isinstance(path, Path) else path
    if not files:
        raise ValueError("an empty list of pictures: give those of at least one slice")
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: missing; give a scan's file, folder or pictures")
    kind = _suffix(path) if isinstance(path, Path) else ""
    if isinstance(path, Path) and (path.is_dir() or kind not in (*FORMATS, *PICTURES)):
        return read_series(path, series)
    if series is not None:
        raise ValueError(f"{files[0]}: only DICOM has series; leave out series={series!r}")
    with without_warnings():
        picture = _mask_picture if mask else _grey_picture
        if not isinstance(path, Path):
            return Volume(_stack(path, picture), axial_affine(), False, path[0].parent)
        if kind in PICTURES:
            return Volume(picture(path)[None], axial_affine(), False, path)
        voxels, affine = FORMATS[kind](path)
        if voxels.dtype == bool and not mask:
            raise ValueError(f"{path}: an array of bool is a mask, not a scan; give grey values")
        grey = voxels.astype(np.float32, copy=False)
        if not np.isfinite(grey).all():
            raise ValueError(
                f"{path}: some grey values are infinite or not a number; set them to that of air"
            )
        return Volume(grey, affine, looks_hounsfield(grey), path)


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return ".nii.gz" if suffixes == [".nii", ".gz"] else "".join(suffixes[-1:])


def _three_axes(array: np.ndarray) -> np.ndarray:
    """The axes of length 1 behind the third gone, and the third made."""
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return array[..., None] if array.ndim == 2 else array


def _nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with refusing(path, AGAIN):
        image = nib.load(path)
        if not isinstance(image, nib.spatialimages.SpatialImage):
            raise ValueError("it holds no volume")
        return _three_axes(image.get_fdata(dtype=np.float32)), np.asarray(image.affine)


def _itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with refusing(path, AGAIN):
        name = "NrrdImageIO" if _suffix(path) in (".nrrd", ".nhdr") else "MetaImageIO"
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
    with refusing(path, "save an array of numbers with numpy.save"):
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


def _stack(paths: Sequence[Path], picture: Callable[[Path], np.ndarray]) -> np.ndarray:
    slices = []
    for path in paths:
        if _suffix(path) not in PICTURES:
            raise ValueError(f"{path}: only pictures ({', '.join(PICTURES)}) make up a sequence")
        slices.append(picture(path))
        if slices[-1].shape != slices[0].shape:
            raise ValueError(
                f"{path}: is {slices[-1].shape}, but {paths[0].name} {slices[0].shape}; the "
                "slices of one scan have one size"
            )
    return np.stack(slices)


def _open(path: Path) -> Image.Image:
    with refusing(path, AGAIN), Image.open(path) as picture:
        picture.load()
        return picture


def _grey_picture(path: Path) -> np.ndarray:
    """0 to 255, float32 (R, C)."""
    picture = _open(path)
    if picture.mode.startswith("I;16"):
        return np.asarray(picture).astype(np.float32) / 257
    colours = np.asarray(picture.convert("RGB")).astype(np.float32)
    if picture.mode in ("I", "F") or np.ptp(colours, axis=-1).max(initial=0) > GREY_NOISE:
        raise ValueError(
            f"{path}: a {picture.mode} picture that is not grey; save it as 8-bit or 16-bit grey"
        )
    return colours.mean(-1)


def _mask_picture(path: Path) -> np.ndarray:
    """Values or palette indices, float32 (R, C)."""
    picture = _open(path)
    if picture.mode not in ("L", "P"):
        raise ValueError(
            f"{path}: a mask must be an 8-bit picture whose values are labels, not of mode "
            f"{picture.mode}; save it so"
        )
    return np.asarray(picture).astype(np.float32)
