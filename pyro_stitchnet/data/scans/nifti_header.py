"""NIfTI files: what a header says, checked before voxels are read."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from pyro_stitchnet.data.scans.common import reading
from pyro_stitchnet.data.scans.nifti_geometry import NiftiGeometry
from pyro_stitchnet.data.scans.stored import AGAIN, StoredVolume

__all__ = ["open_nifti", "read_header"]

GZIP = b"\x1f\x8b"
"""The first bytes of a gzip file, which may have any name."""

HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
"""Classes of headers by their length, which their first field states."""


def open_nifti(path: Path) -> StoredVolume:
    """Read the header of a ``.nii`` or ``.nii.gz`` file, NIfTI-1 or NIfTI-2.

    Raises:
        ValueError: the file is not a NIfTI file, or its header contradicts the file or does not
            describe a scan; the message names the file.
    """
    header, packed = read_header(path)
    with reading(path, AGAIN):
        _check(header, path)
        shape = header.get_data_shape()
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        shape = (*shape, *[1] * (3 - len(shape)))
        geometry = NiftiGeometry.of(header)
        return StoredVolume(
            source=path,
            file=path,
            start=0 if packed else int(header["vox_offset"]),
            packing="gzip" if packed else "",
            skipped=int(header["vox_offset"]) if packed else 0,
            shape=shape,
            dtype=header.get_data_dtype(),
            affine=geometry.affine,
            scaling=_scaling(header),
            spaced=geometry.spaced,
            warnings=geometry.warnings,
            nifti=geometry.block,
        )


def read_header(path: Path) -> tuple[nib.Nifti1Header, bool]:
    """Read the header of a file as it is, and whether the file is packed by gzip.

    Raises:
        ValueError: the file is not a NIfTI file; the message names it.
    """
    with reading(path, AGAIN):
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
        with gzip.open(path) if packed else path.open("rb") as file:
            return _header(file.read(max(HEADERS))), packed


def _header(block: bytes) -> nib.Nifti1Header:
    """Parse the beginning of a file."""
    for order in ("<", ">"):
        length = int(np.frombuffer(block[:4], f"{order}i4")[0]) if len(block) >= 4 else 0
        if length in HEADERS and len(block) >= length:
            # No check: nibabel's would repair some fields silently.
            return HEADERS[length](block[:length], order, check=False)
    raise ValueError("it does not begin with a NIfTI header")


def _check(header: nib.Nifti1Header, path: Path) -> None:
    """Refuse anything but a volume of grey values in the file itself."""
    magic, length = bytes(header["magic"]), int(header["sizeof_hdr"])
    if magic[:3] in (b"ni1", b"ni2"):
        raise ValueError(f"{path}: its voxels are in another file (.img); convert it to .nii.gz")
    if magic[:3] != (b"n+1" if length == 348 else b"n+2"):
        raise ValueError("it does not begin with a NIfTI header")
    if not 1 <= header["dim"][0] <= 7:
        raise ValueError(f"its header claims {header['dim'][0]} axes")
    try:
        kind = header.get_data_dtype()
    except KeyError:
        raise ValueError(f"its header names no type of numbers ({header['datatype']})") from None
    if kind.kind not in "iuf":
        what = "complex numbers" if kind.kind == "c" else "colours"
        raise ValueError(f"{path}: holds {what}, not grey values; save it as a volume of numbers")
    first = float(header["vox_offset"])
    if not first.is_integer() or first < length + 4:
        raise ValueError(
            f"its header says that the voxels begin at byte {first:g}, but the header itself is "
            f"{length + 4} bytes long"
        )


def _scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    """Return slope and intercept; 1 and 0 if the slope is 0 or both are NaN."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or (np.isnan(slope) and np.isnan(intercept)):
        return 1.0, 0.0
    return slope, intercept
