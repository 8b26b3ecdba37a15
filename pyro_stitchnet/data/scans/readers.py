"""Scans read whole into memory: DICOM, NIfTI, NRRD, MetaImage, NumPy arrays and image files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom.misc import is_dicom

from pyro_stitchnet.data.scans.common import reading, without_warnings
from pyro_stitchnet.data.scans.dicom import open_series
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS
from pyro_stitchnet.data.scans.images import read_grey_image, read_images, read_mask_image
from pyro_stitchnet.data.scans.metaimage import open_metaimage
from pyro_stitchnet.data.scans.nifti_header import open_nifti
from pyro_stitchnet.data.scans.nrrd import open_nrrd
from pyro_stitchnet.data.scans.stored import StoredVolume
from pyro_stitchnet.data.scans.volume import Volume, axial_affine

__all__ = [
    "check_exists",
    "files_of",
    "is_dicom_path",
    "is_image_path",
    "open_volume",
    "read_volume",
]

GREY_SCALE = (0.0, 255.0)
"""Black and white of image files."""


def read_volume(
    path: Path | Sequence[Path], *, series: str | None = None, mask: bool = False
) -> Volume:
    """Read one scan or mask, float32 on the grid of its file.

    - A folder, several folders of one series, ``.dcm`` or a file without a known ending: DICOM, see
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
        path: a file, a DICOM folder or several, or image files, whose source is their folder.
        series: SeriesInstanceUID, for a DICOM folder that holds several series.
        mask: whether to read a mask: values or palette indices of an image, and arrays of bool.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a file is unreadable, or holds no scan; the message names it.
    """
    check_exists(path, series)
    if is_dicom_path(path):
        opened = open_series(path, series)
        if mask and opened.lossy:
            raise ValueError(
                f"{opened.source}: a mask that was compressed with losses, which changes labels; "
                "export it without"
            )
        return opened.volume()
    if not is_image_path(path):
        assert isinstance(path, Path)
        return open_volume(path, mask=mask).volume()
    paths = [path] if isinstance(path, Path) else path
    with without_warnings():
        slices = np.stack(list(read_images(paths, read_mask_image if mask else read_grey_image)))
    source = path if isinstance(path, Path) else path[0].parent
    return Volume(slices, axial_affine(), False, source, spaced=False, scale=GREY_SCALE)


def open_volume(path: Path, *, mask: bool = False) -> StoredVolume:
    """Read the header of a NIfTI, NRRD, MetaImage or NumPy file, and check what it claims.

    Args:
        path: the file.
        mask: whether it may be an array of bool.

    Raises:
        ValueError: the file is unreadable, or holds no scan; the message names it.
    """
    with without_warnings():
        stored = FORMATS[_ending(path)](path)
    if stored.dtype == bool and not mask:
        raise ValueError(f"{path}: an array of bool is a mask, not a scan; give grey values")
    return stored


def files_of(path: Path) -> tuple[Path, ...]:
    """Return a file, and the one that holds its voxels if its header names another.

    A file that cannot be read is returned alone.
    """
    try:
        voxels = open_volume(path).file if _ending(path) in DETACHABLE else path
    except (OSError, ValueError):
        return (path,)
    return (path,) if voxels == path else (path, voxels)


def is_dicom_path(path: Path | Sequence[Path]) -> bool:
    """Return whether :func:`read_volume` reads a path as DICOM."""
    if not isinstance(path, Path):
        return all(one.is_dir() for one in path)
    return path.is_dir() or _ending(path) not in (*FORMATS, *IMAGE_ENDINGS)


def is_image_path(path: Path | Sequence[Path]) -> bool:
    """Return whether :func:`read_volume` reads a path as image files."""
    return not is_dicom_path(path) and (
        not isinstance(path, Path) or _ending(path) in IMAGE_ENDINGS
    )


def check_exists(path: Path | Sequence[Path], series: str | None) -> None:
    """Refuse missing files, and a series of anything but DICOM.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: there are no files, one is not a file, or ``series`` is given for a format
            without series.
    """
    files = [path] if isinstance(path, Path) else path
    if not files:
        raise ValueError("an empty list of images: give those of at least one slice")
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: missing; give a scan's file, folder or images")
        if not file.is_file() and not file.is_dir():
            raise ValueError(f"{file}: neither a file nor a folder; give a scan's")
        if file.is_dir() and not is_dicom_path(path):
            raise ValueError(f"{file}: a folder among the images of a scan; give files")
        if _ending(file) in PAIR_ENDINGS and not is_dicom(file):
            raise ValueError(f"{file}: one of a pair of .hdr and .img; convert them to .nii.gz")
    if series is not None and not is_dicom_path(path):
        raise ValueError(f"{files[0]}: only DICOM has series; leave out series={series!r}")


def _ending(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return ".nii.gz" if suffixes == [".nii", ".gz"] else "".join(suffixes[-1:])


def _numpy(path: Path) -> StoredVolume:
    with reading(path, "save an array of numbers with numpy.save"):
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError("it does not begin like a file of numpy.save")
            file.seek(0)
            read = HEADERS.get(np.lib.format.read_magic(file))
            if read is None:
                raise ValueError("its version of the format is unknown")
            shape, columns_first, dtype = read(file)
            start = file.tell()
        if dtype.kind not in "biuf":
            raise ValueError(f"an array of {dtype}")
        shape = (1, *shape) if len(shape) == 2 else shape
        return StoredVolume(
            source=path,
            file=path,
            start=start,
            packing="",
            skipped=0,
            shape=shape,
            dtype=dtype,
            affine=axial_affine(),
            slowest=2 if columns_first else 0,
            spaced=False,
        )


MAGIC = np.lib.format.MAGIC_PREFIX

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Readers of headers by the version of the format; later ones are for records only."""

PAIR_ENDINGS = (".hdr", ".img")

DETACHABLE = (".nrrd", ".nhdr", ".mha", ".mhd")
"""Formats whose header may name another file, which holds the voxels."""

FORMATS: Mapping[str, Callable[[Path], StoredVolume]] = {
    ".nii": open_nifti,
    ".nii.gz": open_nifti,
    ".nrrd": open_nrrd,
    ".nhdr": open_nrrd,
    ".mha": open_metaimage,
    ".mhd": open_metaimage,
    ".npy": _numpy,
}
"""What reads the header of a file, by its ending."""
