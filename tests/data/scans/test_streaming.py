"""Scans read slice by slice are those read whole."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

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


def same(one: Stack, other: Stack) -> bool:
    assert (one.shape, one.spacing, one.hounsfield) == (
        other.shape,
        other.spacing,
        other.hounsfield,
    )
    assert one.range == pytest.approx(other.range)
    assert np.array_equal(one.affine, other.affine)
    return np.allclose(np.stack(list(one.slices)), np.asarray(other.slices), atol=1e-4)


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha"])
def test_volumes(write_volume: Callable[..., Path], tmp_path: Path, name: str, ending: str) -> None:
    hu = np.random.default_rng(0).integers(-1000, 400, (6, 7, 5)).astype(np.int16)
    path = write_volume(tmp_path / f"v{ending}", hu, AFFINES[name])
    read = read_stack(path, tmp_path / "spool")
    assert same(read, Stack.of(read_volume(path)))
    streamed = ending != ".mha" and name != "sagittal"
    assert isinstance(read.slices, Spool) == streamed
    assert not read.files


def test_scaled_numbers_of_a_nifti(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINES["RAS"])
    image.header.set_slope_inter(2.5, -1000)
    nib.save(image, tmp_path / "v.nii.gz")
    assert same(
        read_stack(tmp_path / "v.nii.gz", tmp_path / "spool"),
        Stack.of(read_volume(tmp_path / "v.nii.gz")),
    )


@pytest.mark.parametrize("step", [(0, 0, 2.5), (0, 0, -2.5)])
@pytest.mark.parametrize("turn", [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [1, 0, 0, 0, -1, 0]])
def test_dicom_series(
    write_series: Callable[..., Path], tmp_path: Path, step: tuple[float, ...], turn: list[int]
) -> None:
    if turn[5]:
        step = (0, step[2], 0)
    stored = np.random.default_rng(0).integers(0, 1400, (5, 6, 7)).astype(np.uint16)
    folder = write_series(tmp_path / "s", stored, step, ImageOrientationPatient=turn)
    read = read_stack(folder, tmp_path / "spool")
    assert same(read, Stack.of(read_volume(folder)))
    assert len(read.files) == 5
    # The files are in the order of the grid's last axis.
    grid = from_axial(np.stack(list(read.slices)), read.affine)
    first = ["d", "b", "e", "a", "c"].index(read.files[0].stem)
    assert np.array_equal(grid[:, :, 0].T, stored[first] - 1024.0)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
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
