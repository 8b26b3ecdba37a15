"""A NIfTI file's geometry: one rule, in mm, with warnings; maps repeat what the file states."""

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pyro_stitchnet.data.scans.nifti import Encoding, write_nifti
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.data.scans.streaming import read_stack

SHAPE = (6, 7, 5)
HU = np.random.default_rng(0).integers(-1000, 500, SHAPE).astype(np.int16)

QFORM = np.diag([-2.0, -2.0, 5.0, 1.0])
QFORM[:3, 3] = 100, 90, -300
MIRRORED = np.diag([2.0, -2.0, 5.0, 1.0])
MIRRORED[:3, 3] = -100, 90, -300
SCALED = np.diag([-4.0, -4.0, 10.0, 1.0])
MOVED = QFORM.copy()
MOVED[:3, 3] += 20
ZERO = np.diag([0.0, 0, 0, 1])
NOT_FINITE = np.full((4, 4), np.nan)


def write(
    path: Path,
    qform: np.ndarray,
    qcode: int,
    sform: np.ndarray,
    scode: int,
    unit: str = "mm",
    header: type[nib.Nifti1Header] = nib.Nifti1Header,
    **fields: Any,
) -> Path:
    """Write HU with both forms as given, in the unit as given."""
    made = header()
    made.set_data_shape(SHAPE)
    made.set_data_dtype(np.int16)
    made.set_qform(qform)
    made.set_sform(sform)
    made["qform_code"], made["sform_code"] = qcode, scode
    made.set_xyzt_units(unit)
    made["vox_offset"] = made.sizeof_hdr + 4
    for name, value in fields.items():
        made[name] = value
    path.write_bytes(made.binaryblock + bytes(4) + HU.tobytes("F"))
    return path


def write_map(stack: Stack, path: Path) -> Path:
    spool = Spool(path.with_name("spool"), stack.slices[0].shape, np.uint8)
    for one in stack.slices:
        spool.append((one > 0).astype(np.uint8))
    write_nifti(path, spool, Encoding(np.uint8), stack.affine, stack.nifti)
    return path


FORMS = {  # qform, code, sform, code; affine; words of the warning
    "both agree": (QFORM, 1, QFORM, 1, QFORM, ""),
    "sform alone": (QFORM, 0, QFORM, 2, QFORM, ""),
    "qform alone": (QFORM, 1, ZERO, 0, QFORM, ""),
    "mirrored": (QFORM, 1, MIRRORED, 2, MIRRORED, "mirrors .* left and right may be exchanged"),
    "scaled": (QFORM, 1, SCALED, 4, SCALED, "sizes too: volumes may be wrong; the sform is used"),
    "moved": (QFORM, 1, MOVED, 3, MOVED, "sform and the qform .* differ; the sform is used"),
    "zero": (QFORM, 1, ZERO, 1, QFORM, "sform .* is invalid: the qform is used"),
    "not finite": (QFORM, 1, NOT_FINITE, 1, QFORM, "sform .* is invalid: the qform is used"),
    "unknown code": (QFORM, 1, QFORM, 77, QFORM, "sform .* is invalid: the qform is used"),
    "sizes differ": (SCALED, 0, QFORM, 1, QFORM, r"sform and the voxel sizes \(pixdim\) .* differ"),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("unit", ["mm", "unknown", "meter", "micron"])
def test_one_affine_in_mm_by_the_rule(tmp_path: Path, name: str, unit: str) -> None:
    qform, qcode, sform, scode, affine, words = FORMS[name]
    scale = np.diag([{"meter": 0.001, "micron": 1000.0}.get(unit, 1.0)] * 3 + [1.0])
    path = write(tmp_path / "a.nii", scale @ qform, qcode, scale @ sform, scode, unit)
    stack = read_stack(path)
    np.testing.assert_allclose(stack.affine, affine, rtol=1e-6, atol=1e-4)
    assert stack.spacing == pytest.approx(np.linalg.norm(affine[:3, :3], axis=0)[::-1], rel=1e-6)
    assert stack.spaced
    if not words:
        assert stack.warnings == ()
    else:
        (warning,) = stack.warnings
        assert re.search(words, warning)
        assert warning[0].isupper()
        assert warning.endswith(".")


@pytest.mark.parametrize("codes", [(0, 0), (1, 1)])
def test_without_a_valid_form_only_sizes_are_known(tmp_path: Path, codes: tuple[int, int]) -> None:
    path = write(tmp_path / "a.nii", QFORM, codes[0], ZERO, codes[1])
    if codes[0]:
        path = write(path, QFORM, codes[0], ZERO, codes[1], quatern_b=3.0)  # no turn
    stack = read_stack(path)
    assert stack.spacing == (5, 2, 2)
    assert np.sign(np.diag(stack.affine)).tolist() == [-1, 1, 1, 1]
    assert stack.spaced
    (warning,) = stack.warnings
    assert "states no orientation" in warning
    assert "left and right" in warning


def test_a_turn_that_was_rounded_is_a_turn(tmp_path: Path) -> None:
    """ITK, too, brings its numbers back to length 1."""
    turn: dict[str, Any] = {"quatern_b": 0.70711, "quatern_c": 0.70711, "quatern_d": 0.0}
    path = write(tmp_path / "a.nii", QFORM, 1, ZERO, 0, **turn)
    stack = read_stack(path)
    assert stack.warnings == ()
    axes = sitk.ReadImage(path).GetDirection()
    directions = stack.affine[:3, :3] / np.linalg.norm(stack.affine[:3, :3], axis=0)
    lps = np.diag([-1.0, -1.0, 1.0]) @ directions
    np.testing.assert_allclose(lps.ravel(), axes, atol=1e-5)


def test_without_sizes_the_spacing_is_unknown(tmp_path: Path) -> None:
    pixdim = [1, 0, 0, 0, 1, 1, 1, 1]
    stack = read_stack(write(tmp_path / "a.nii", QFORM, 0, ZERO, 0, pixdim=pixdim))
    assert not stack.spaced
    assert stack.spacing == (1, 1, 1)
    assert read_stack(write(tmp_path / "a.nii", QFORM, 1, QFORM, 1)).spaced


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_of_pixdim_may_be_0(tmp_path: Path, first: int) -> None:
    pixdim = [first, 2, 2, 5, 0, 0, 0, 0]
    stack = read_stack(write(tmp_path / "a.nii", QFORM, 1, QFORM, 1, pixdim=pixdim))
    assert stack.warnings == ()


@pytest.mark.parametrize("name", [*FORMS, "no form"])
@pytest.mark.parametrize("unit", ["mm", "unknown", "meter", "micron"])
@pytest.mark.parametrize("header", [nib.Nifti1Header, nib.Nifti2Header])
def test_a_map_repeats_the_geometry_of_its_scan(
    tmp_path: Path, name: str, unit: str, header: type[nib.Nifti1Header]
) -> None:
    forms = {**FORMS, "no form": (QFORM, 0, ZERO, 0, QFORM, "")}
    qform, qcode, sform, scode, *_ = forms[name]
    scale = np.diag([{"meter": 0.001, "micron": 1000.0}.get(unit, 1.0)] * 3 + [1.0])
    sform = scale @ np.nan_to_num(sform, nan=0.0)
    path = write(tmp_path / "a.nii", scale @ qform, qcode, sform, scode, unit, header)
    stack = read_stack(path)
    written = write_map(stack, tmp_path / "map.nii.gz")
    kind = nib.Nifti1Image if header is nib.Nifti1Header else nib.Nifti2Image
    ours, theirs = nib.Nifti1Image.from_filename(written), kind.from_filename(path)
    for field in ("qform_code", "sform_code", "xyzt_units", "srow_x", "quatern_d", "qoffset_x"):
        assert ours.header[field] == pytest.approx(theirs.header[field], rel=1e-6), field
    np.testing.assert_allclose(ours.header["pixdim"][:4], theirs.header["pixdim"][:4], rtol=1e-6)
    np.testing.assert_allclose(ours.affine, theirs.affine, rtol=1e-6)
    assert np.array_equal(np.asarray(ours.dataobj), HU > 0)
    again = read_stack(written)
    np.testing.assert_allclose(again.affine, stack.affine, rtol=1e-6)
    assert again.warnings == stack.warnings


@pytest.mark.parametrize("name", ["both agree", "sform alone", "mirrored", "moved", "zero"])
@pytest.mark.parametrize("unit", ["mm", "meter"])
def test_a_map_lies_on_its_scan_in_itk(tmp_path: Path, name: str, unit: str) -> None:
    qform, qcode, sform, scode, *_ = FORMS[name]
    scale = np.diag([0.001 if unit == "meter" else 1.0] * 3 + [1.0])
    path = write(tmp_path / "a.nii", scale @ qform, qcode, scale @ sform, scode, unit)
    ours = sitk.ReadImage(write_map(read_stack(path), tmp_path / "map.nii.gz"))
    theirs = sitk.ReadImage(path)
    assert ours.GetOrigin() == theirs.GetOrigin()
    assert ours.GetSpacing() == theirs.GetSpacing()
    assert ours.GetDirection() == theirs.GetDirection()


def test_nothing_but_the_geometry_of_a_header_is_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.nii", QFORM, 1, QFORM, 1, descrip=b"Jane Doe", db_name=b"MRN 7731905"
    )
    assert b"Jane" not in read_volume(path).nifti
    written = write_map(read_stack(path), tmp_path / "map.nii.gz")
    header = nib.Nifti1Image.from_filename(written).header
    assert b"MRN" not in header.binaryblock


def test_a_single_slice_may_lack_the_third_size(tmp_path: Path) -> None:
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE[:2])
    header.set_data_dtype(np.int16)
    header["pixdim"] = [1, 2, 3, 0, 0, 0, 0, 0]
    header["qform_code"], header["vox_offset"] = 1, 352
    (tmp_path / "a.nii").write_bytes(header.binaryblock + bytes(4) + HU[..., 0].tobytes("F"))
    stack = read_stack(tmp_path / "a.nii")
    assert stack.spacing == (1, 3, 2)
    assert stack.warnings == ()
