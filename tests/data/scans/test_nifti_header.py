"""NIfTI headers: what they say of their numbers is heeded, or the file is refused."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pyro_stitchnet.data.scans.readers import read_volume

AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])
HU = np.random.default_rng(0).integers(-1000, 500, (8, 9, 7)).astype(np.int16)


def write(path: Path, *, offset: int = 352, **fields: Any) -> Path:
    """Write HU with the fields of its header set by name."""
    header = nib.Nifti1Header()
    header.set_data_shape(HU.shape)
    header.set_data_dtype(np.int16)
    header.set_sform(AFFINE, 1)
    header["vox_offset"] = offset
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + bytes(max(0, offset - 348)) + HU.tobytes("F"))
    return path


def refused(path: Path, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^{path}: .*{words}"):
        read_volume(path)


@pytest.mark.parametrize("offset", [352, 400, 1024])
def test_voxels_may_begin_anywhere_behind_the_header(tmp_path: Path, offset: int) -> None:
    path = write(tmp_path / "a.nii", offset=offset)
    assert np.array_equal(read_volume(path).voxels, HU)


@pytest.mark.parametrize("offset", [0, 1, 348, 351.5, -1, np.nan, np.inf, 1e30])
def test_voxels_within_the_header_or_nowhere_are_refused(tmp_path: Path, offset: float) -> None:
    refused(write(tmp_path / "a.nii", vox_offset=offset), "voxels")


@pytest.mark.parametrize("slope", [(0, 7), (np.nan, np.nan), (1, 0)])
def test_a_slope_of_0_or_none_means_that_values_are_as_stored(
    tmp_path: Path, slope: tuple[float, float]
) -> None:
    path = write(tmp_path / "a.nii", scl_slope=slope[0], scl_inter=slope[1])
    assert np.array_equal(read_volume(path).voxels, HU)


@pytest.mark.parametrize("slope", [(np.inf, 0), (1, np.nan), (np.nan, 0), (2, -np.inf)])
def test_a_slope_that_is_no_number_is_refused(tmp_path: Path, slope: tuple[float, float]) -> None:
    refused(write(tmp_path / "a.nii", scl_slope=slope[0], scl_inter=slope[1]), "scaled by")


def test_complex_numbers_and_colours_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(HU * (1 + 1j), AFFINE), tmp_path / "c.nii.gz")
    refused(tmp_path / "c.nii.gz", "holds complex numbers, not grey values; save")
    colour = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, AFFINE), tmp_path / "rgb.nii.gz")
    refused(tmp_path / "rgb.nii.gz", "holds colours, not grey values; save")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"datatype": 5}, "no type of numbers"),
        ({"dim": [0, 1, 1, 1, 1, 1, 1, 1]}, "claims 0 axes"),
        ({"dim": [3, 8, -9, 7, 1, 1, 1, 1]}, "longer than 0"),
        ({"dim": [4, 8, 9, 7, 2, 1, 1, 1]}, "one time point"),
        ({"dim": [3, 8, 9, 6, 1, 1, 1, 1]}, "claims .* but a.nii holds"),
        ({"magic": b"ni1"}, "in another file .* convert"),
        ({"magic": b"xyz"}, "does not begin with a NIfTI header"),
        ({"sizeof_hdr": 0}, "does not begin with a NIfTI header"),
        ({"xyzt_units": 5}, "unit of length has the code 5"),
    ],
)
def test_other_headers_are_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    refused(write(tmp_path / "a.nii", **fields), words)


def test_nifti_2_and_other_orders_of_bytes_are_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(HU, AFFINE), tmp_path / "two.nii.gz")
    big = nib.Nifti1Image(HU, AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(big, tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    for name in ("two.nii.gz", "big.nii"):
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume.voxels, HU)
        assert np.array_equal(volume.affine, AFFINE)
