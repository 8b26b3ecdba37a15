"""Scans streamed slice by slice equal scans read whole, to the bit."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.data.scans.volume import from_axial

AFFINES = {
    "LPS": np.diag([-0.8, -0.7, 5.0, 1.0]),
    "RAS": np.diag([0.8, 0.7, 5.0, 1.0]),
    "upside down": np.diag([-0.8, 0.7, -5.0, 1.0]),
    "transposed": np.diag([1.0, 1.0, 5.0, 1.0])[[1, 0, 2, 3]],
    "sagittal": np.diag([5.0, 0.8, 0.7, 1.0])[[2, 0, 1, 3]],
}


def assert_same(one: Stack, other: Stack) -> None:
    for field in fields(Stack):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "slices":
            a, b = np.stack(list(a)), np.stack(list(b))
            assert a.dtype == b.dtype == np.float32
        assert np.array_equal(a, b), field.name


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha"])
def test_volumes(write_volume: Callable[..., Path], tmp_path: Path, name: str, ending: str) -> None:
    hu = np.random.default_rng(0).integers(-1000, 400, (6, 7, 5)).astype(np.int16)
    path = write_volume(tmp_path / f"v{ending}", hu, AFFINES[name])
    stack = read_stack(path, tmp_path / "spool")
    assert_same(stack, Stack.of(read_volume(path)))
    assert_same(stack, read_stack(path))
    assert isinstance(stack.slices, Spool) == (name != "sagittal")
    assert not stack.files


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float64])
def test_scaled_numbers_of_a_nifti(tmp_path: Path, dtype: type) -> None:
    numbers: np.ndarray = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(dtype)
    image = nib.Nifti1Image(numbers, AFFINES["RAS"])
    image.header.set_slope_inter(0.37, -1000.1)
    nib.save(image, tmp_path / "v.nii.gz")
    whole = read_volume(tmp_path / "v.nii.gz")
    assert_same(read_stack(tmp_path / "v.nii.gz", tmp_path / "spool"), Stack.of(whole))


@pytest.mark.parametrize("step", [(0, 0, 2.5), (0, 0, -2.5)])
@pytest.mark.parametrize("turn", [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [1, 0, 0, 0, -1, 0]])
def test_dicom_series(
    write_series: Callable[..., Path], tmp_path: Path, step: tuple[float, ...], turn: list[int]
) -> None:
    if turn[5]:
        step = (0, step[2], 0)
    stored = np.random.default_rng(0).integers(0, 1400, (5, 6, 7)).astype(np.uint16)
    folder = write_series(tmp_path / "s", stored, step, ImageOrientationPatient=turn)
    stack = read_stack(folder, tmp_path / "spool")
    assert isinstance(stack.slices, Spool) == (not turn[5])
    assert_same(stack, replace(Stack.of(read_volume(folder)), files=stack.files))
    assert stack.study == "1.2"
    assert len(stack.files) == 5
    # The files are in the order of the grid's last axis.
    grid = from_axial(np.stack(list(stack.slices)), stack.affine)
    first = ["d", "b", "e", "a", "c"].index(stack.files[0].stem)
    assert np.array_equal(grid[:, :, 0].T, stored[first] - 1024.0)


@pytest.mark.parametrize(("intercept", "hounsfield"), [(0, True), (None, False)])
def test_units_of_a_dicom_series_without_low_values(
    write_series: Callable[..., Path],
    tmp_path: Path,
    intercept: int | None,
    hounsfield: bool,
) -> None:
    """A RescaleIntercept makes grey values Hounsfield units, also where none is below -200."""
    stored = np.arange(60).reshape(3, 4, 5).astype(np.uint16)
    folder = write_series(tmp_path / "s", stored, RescaleIntercept=intercept)
    stack = read_stack(folder, tmp_path / "spool")
    assert stack.hounsfield == hounsfield
    assert_same(stack, replace(Stack.of(read_volume(folder)), files=stack.files))


def test_images(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3, 6, 7)).astype(np.uint8)
    paths = [tmp_path / f"{c}.png" for c in "cab"]
    for path, one in zip(paths, grey, strict=True):
        Image.fromarray(one).save(path)
    stack = read_stack(paths, tmp_path / "spool")
    assert isinstance(stack.slices, Spool)
    assert_same(stack, Stack.of(read_volume(paths)))
    assert np.array_equal(np.stack(list(stack.slices)), grey)
    assert_same(read_stack(paths[0], tmp_path / "spool"), Stack.of(read_volume(paths[0])))


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays(tmp_path: Path, order: Literal["C", "F"]) -> None:
    hu = np.random.default_rng(0).integers(-1000, 400, (3, 4, 5)).astype(">i2")
    np.save(tmp_path / "v.npy", np.array(hu, order=order))
    stack = read_stack(tmp_path / "v.npy", tmp_path / "spool")
    assert isinstance(stack.slices, Spool) == (order == "C")
    assert_same(stack, Stack.of(read_volume(tmp_path / "v.npy")))
    assert np.array_equal(np.stack(list(stack.slices)), hu)


def test_a_series_of_a_format_without_series_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(ValueError, match=r"v\.nii: only DICOM has series"):
        read_stack(tmp_path / "v.nii", tmp_path / "spool", series="1.2")


def test_a_missing_scan_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "a.nii.gz", tmp_path / "series", [tmp_path / "a.png"]):
        with pytest.raises(FileNotFoundError, match="missing; give a scan's file, folder or imag"):
            read_stack(path, tmp_path / "spool")


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    voxels = np.zeros((3, 4, 5), np.float32)
    voxels[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(ValueError, match=r"v\.nii.*not a number"):
        read_stack(tmp_path / "v.nii", tmp_path / "spool")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = nib.Nifti1Image(rng.integers(-1000, 400, (32, 32, 9)).astype(np.int16), np.eye(4))
    nib.save(image, tmp_path / "v.nii.gz")
    whole = (tmp_path / "v.nii.gz").read_bytes()
    (tmp_path / "v.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"v\.nii\.gz: unreadable.*again"):
        read_stack(tmp_path / "v.nii.gz", tmp_path / "spool")


def test_a_spool_is_a_sequence_of_its_arrays(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", (2, 3), np.int16)
    arrays = [np.full((2, 3), n, np.int16) for n in range(4)]
    for one in arrays:
        spool.append(one)
    assert len(spool) == 4
    assert np.array_equal(np.stack(list(spool)), arrays)
    spool.reverse()
    assert np.array_equal(np.stack(list(spool)), arrays[::-1])
    assert np.array_equal(spool.mapped(), arrays[::-1])
    with pytest.raises(IndexError):
        spool[4]
    with pytest.raises(ValueError, match=r"\(3, 2\), not \(2, 3\)"):
        spool.append(arrays[0].T)
