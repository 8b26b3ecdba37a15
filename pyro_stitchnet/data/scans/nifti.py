"""Maps of a scan as NIfTI, written some slices at a time."""

import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import isal_zlib

from pyro_stitchnet.data.scans.nifti_geometry import repeat_geometry
from pyro_stitchnet.data.scans.stack import Spool
from pyro_stitchnet.data.scans.volume import from_axial
from pyro_stitchnet.runtime.files import naming, temporary_path

__all__ = ["Encoding", "map_header", "write_nifti"]

BLOCK = 2**25
"""Bytes that are written at a time."""


@dataclass(frozen=True)
class Encoding:
    """How a map's values are stored: value = stored number times ``slope``.

    Attributes:
        dtype: of the stored numbers.
        slope: the value of one step.
    """

    dtype: type[np.integer]
    slope: float = 1.0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the stored numbers of values, clipped to the type's range."""
        limits = np.iinfo(self.dtype)
        if values.dtype == self.dtype and self.slope == 1:
            return values
        steps = np.rint(values / np.float32(self.slope))
        return steps.clip(limits.min, limits.max).astype(self.dtype)


def map_header(shape: tuple[int, ...], affine: np.ndarray, nifti: bytes = b"") -> nib.Nifti1Header:
    """Return a header with the geometry of a scan.

    Args:
        shape: of the scan's grid, (I, J, K).
        affine: as for :func:`write_nifti`.
        nifti: as for :func:`write_nifti`.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    if nifti:
        repeat_geometry(nifti, header)
        return header
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner", strip_shears=True)
    return header


def write_nifti(
    path: Path, spool: Spool, encoding: Encoding, affine: np.ndarray, nifti: bytes = b""
) -> None:
    """Write axial slices as a volume on the scan's own grid, atomically.

    The same map gives the same bytes: the file holds neither its name nor a time.

    Args:
        path: a file called ``.nii.gz``, in an existing folder.
        spool: stored numbers of each axial slice, from the feet.
        encoding: of the stored numbers.
        affine: of the scan's grid, RAS+, (4, 4).
        nifti: the geometry of the scan's own NIfTI file, which the map then repeats as it is; see
            :class:`~pyro_stitchnet.data.scans.nifti_geometry.NiftiGeometry`.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    shape = from_axial(np.broadcast_to(np.uint8(0), (len(spool), *spool.shape)), affine).shape
    header = map_header(shape, affine, nifti)
    header.set_data_dtype(spool.dtype)
    header.set_slope_inter(encoding.slope, 0)
    header["descrip"] = b"stitchnet: for research use only"
    header["vox_offset"] = 352
    planes = max(1, BLOCK // (shape[0] * shape[1] * spool.dtype.itemsize))
    temporary = temporary_path(path)
    # ISA-L compresses CT four times as fast as zlib. 31: a gzip file without a time.
    gzip = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    try:
        with naming(path), temporary.open("xb") as raw:
            # nibabel's own deterministic file is private, and cannot be synced before the rename.
            raw.write(gzip.compress(header.binaryblock + bytes(4)))
            for k in range(0, shape[2], planes):
                # A new mapping for each block, so that the pages of the last leave memory.
                block = from_axial(spool.mapped(), affine)[:, :, k : k + planes]
                raw.write(gzip.compress(block.tobytes("F")))
            raw.write(gzip.flush())
            raw.flush()
            os.fsync(raw.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
