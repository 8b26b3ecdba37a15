"""Masks are brought onto the slices of their scan, or refused."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from pyro_stitchnet.data.scans.masks import read_mask
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.data.scans.volume import Volume, to_axial

Write = Callable[..., Path]

SHAPE = (4, 5, 6)
HU = np.random.default_rng(0).integers(-1000, 500, SHAPE).astype(np.int16)
MASK = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8)
NIFTI = (".nii", ".nii.gz")
ITK = (".nrrd", ".nhdr", ".mha", ".mhd")


def random_affine(seed: int) -> np.ndarray:
    """A turned grid of random spacing and origin, left-handed or right-handed."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    turn = Rotation.random(rng=seed).as_matrix()
    affine[:3, :3] = turn * rng.uniform(0.5, 5, 3) * rng.choice([-1, 1])
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return affine


def scan_on(affine: np.ndarray) -> Stack:
    return Stack.of(Volume(HU.astype(np.float32), affine, True, Path("scan")))


def refused(path: Path, *words: str, like: Stack) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: ")) as caught:
        read_mask(path, like=like)
    for word in words:
        assert word in str(caught.value)


def test_a_real_label_map_lies_on_its_series(samples: Path, tmp_path: Path) -> None:
    scan = read_stack(samples / "cip_ct64_dicom")
    refused(samples / "lm-64.nrrd", "not 0 to 782", like=scan)
    regions = sitk.ReadImage(samples / "lm-64.nrrd")
    sitk.WriteImage(sitk.Cast(regions > 0, sitk.sitkUInt8), tmp_path / "lungs.nrrd")
    lungs = read_mask(tmp_path / "lungs.nrrd", like=scan).astype(bool)
    assert np.median(np.asarray(scan.slices)[lungs]) < -750
    assert np.median(np.asarray(scan.slices)[~lungs]) > -250


@pytest.mark.parametrize("suffix", [*NIFTI, *ITK])
@settings(derandomize=True, deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    order=st.permutations(range(3)),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
def test_a_mask_with_other_axes_is_turned_to_its_scan(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    seed: int,
    order: Sequence[int],
    flips: Sequence[int],
    write_volume: Write,
) -> None:
    like = scan_on(random_affine(seed))
    axes = np.zeros((4, 4))  # from the mask's voxels to the scan's
    axes[3, 3] = 1
    for mask_axis, (scan_axis, sign) in enumerate(zip(order, flips, strict=True)):
        axes[scan_axis, mask_axis] = sign
        axes[scan_axis, 3] = 0 if sign > 0 else SHAPE[scan_axis] - 1
    turned = np.zeros([SHAPE[axis] for axis in order], np.uint8)
    for index in np.ndindex(turned.shape):
        turned[index] = MASK[tuple(apply_affine(axes, index).astype(int))]
    path = tmp_path_factory.getbasetemp() / f"mask{suffix}"
    mask = read_mask(write_volume(path, turned, like.affine @ axes), like=like)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, to_axial(MASK, like.affine))


def two_forms(path: Path, array: np.ndarray, qform: np.ndarray, sform: np.ndarray | None) -> Path:
    """Write a NIfTI file with two forms, or with neither."""
    image = nib.Nifti1Image(array, None)
    image.set_qform(qform, int(sform is not None))
    if sform is not None:
        image.set_sform(sform, 2)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", ["itk", "affine", "both forms", "other form"])
def test_a_mask_of_a_scan_with_two_forms_fits_by_either_or_is_refused(
    tmp_path: Path, write_volume: Write, kind: str, symmetric: bool
) -> None:
    qform, sform = np.diag([-2.0, -2.0, 5.0, 1.0]), np.diag([2.0, -2.0, 5.0, 1.0])
    if symmetric:  # then each mask on one form lies, mirrored, on the other too
        qform[0, 3], sform[0, 3] = 3, -3
    path = tmp_path / "mask.nii.gz"
    scan = read_stack(two_forms(tmp_path / "scan.nii.gz", HU, qform, sform))
    if kind == "itk":
        image = sitk.GetImageFromArray(MASK.T)
        image.CopyInformation(sitk.ReadImage(tmp_path / "scan.nii.gz"))
        sitk.WriteImage(image, path)
    elif kind == "affine":
        write_volume(path, MASK, scan.affine)
    elif kind == "both forms":
        two_forms(path, MASK, qform, sform)
    else:
        write_volume(path, MASK, qform)
    if symmetric and kind in ("itk", "other form"):
        refused(path, "fits its scan", "in several ways", "make them agree", like=scan)
    else:
        assert np.array_equal(read_mask(path, like=scan), to_axial(MASK, scan.affine))


@pytest.mark.parametrize("kind", ["itk", "none"])
def test_a_mask_of_a_scan_without_a_form(tmp_path: Path, kind: str) -> None:
    path, qform = tmp_path / "mask.nii.gz", np.diag([-2.0, -2.0, 5.0, 1.0])
    scan = read_stack(two_forms(tmp_path / "scan.nii.gz", HU, qform, None))
    if kind == "itk":
        image = sitk.GetImageFromArray(MASK.T)
        image.CopyInformation(sitk.ReadImage(tmp_path / "scan.nii.gz"))
        sitk.WriteImage(image, path)
    else:
        two_forms(path, MASK, qform, None)
    assert np.array_equal(read_mask(path, like=scan), to_axial(MASK, scan.affine))


@pytest.mark.parametrize("units", [("mm", "meter"), ("meter", "mm"), ("micron", "micron")])
def test_a_mask_may_have_another_unit_of_length(tmp_path: Path, units: tuple[str, str]) -> None:
    affine = random_affine(5)
    for name, array, unit in zip(("scan", "mask"), (HU, MASK), units, strict=True):
        scale = np.diag([{"meter": 0.001, "micron": 1000.0}.get(unit, 1.0)] * 3 + [1.0])
        image = nib.Nifti1Image(array, scale @ affine)
        image.header.set_xyzt_units(unit)
        nib.save(image, tmp_path / f"{name}.nii.gz")
    scan = read_stack(tmp_path / "scan.nii.gz")
    assert np.array_equal(
        read_mask(tmp_path / "mask.nii.gz", like=scan), to_axial(MASK, scan.affine)
    )


def test_a_mask_on_another_grid_is_refused(tmp_path: Path, write_volume: Write) -> None:
    affine = random_affine(3)
    like = scan_on(affine)
    path, remedy = tmp_path / "mask.nii", "export the mask on the scan's grid"
    refused(write_volume(path, MASK[:-1], affine), "(3, 5, 6), its scan scan (4, 5, 6)", like=like)
    for moved, wrong in ((0.05, False), (0.2, True)):  # in voxels
        other = affine.copy()
        other[:3, 3] += moved * affine[:3, 0]
        write_volume(path, MASK, other)
        if wrong:
            refused(path, "lies elsewhere than its scan scan", remedy, like=like)
        else:
            assert np.array_equal(read_mask(path, like=like), to_axial(MASK, affine))
    refused(write_volume(path, MASK, affine @ np.diag([1, 1, 1.1, 1])), "lies elsewhere", like=like)
    refused(write_volume(path, MASK, affine @ np.diag([1, -1, 1, 1])), "lies elsewhere", like=like)


@pytest.mark.parametrize(
    ("value", "words"), [(256, "0 to 256"), (-1, "-1 to 3"), (0.5, "whole numbers of 0 to 255")]
)
def test_a_mask_holds_whole_numbers_of_one_byte(
    tmp_path: Path, value: float, words: str, write_volume: Write
) -> None:
    mask = np.where(MASK == 1, 0, MASK).astype(np.float32)
    mask[0, 0] = value
    mask[0, 1] = 0
    like = scan_on(np.eye(4))
    refused(write_volume(tmp_path / "a.nii", mask, np.eye(4)), words, "a label map", like=like)
    mask[0, 0] = 255
    path = write_volume(tmp_path / "a.nii", mask, np.eye(4))
    assert np.array_equal(read_mask(path, like=like), to_axial(mask, np.eye(4)))
