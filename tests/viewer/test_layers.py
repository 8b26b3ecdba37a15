"""Volumes as sent to the browser."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.runtime.checksums import sha256
from pyro_stitchnet.viewer.layers import LayerGrid, encode, full_grid, lung_grid
from pyro_stitchnet.viewer.results import ScanResult


def write(folder: Path, name: str, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), folder / name)


def result(folder: Path) -> ScanResult:
    return ScanResult(folder, {"checksums": {p.name: sha256(p) for p in folder.iterdir()}})


@pytest.mark.parametrize("depth", [1, 31, 32, 33, 64])
def test_every_slice_is_sent_once(tmp_path: Path, depth: int) -> None:
    labels = np.random.default_rng(depth).integers(0, 4, (3, 2, depth)).astype(np.uint8)
    write(tmp_path, "labels.nii.gz", labels)
    for step in (1, 5):
        grid = LayerGrid(labels.shape, (0, 0, 0), labels.shape, (1, 1, step))
        sent = nib.Nifti1Image.from_bytes(encode(result(tmp_path), "labels", grid, compress=False))
        np.testing.assert_array_equal(sent.get_fdata(), labels[..., ::step])


def test_values_out_of_range_are_clipped(tmp_path: Path) -> None:
    write(tmp_path, "labels.nii.gz", np.ones((2, 2, 1), np.uint8))
    hu = np.array([[[-1e5], [np.nan]], [[40000.0], [12.4]]], np.float32)
    write(tmp_path, "scan.nii.gz", hu)
    sent = encode(result(tmp_path), "scan", full_grid(result(tmp_path), 100), compress=False)
    values = nib.Nifti1Image.from_bytes(sent).get_fdata().ravel()
    np.testing.assert_array_equal(values, [-32768, 0, 32767, 12])


def test_the_lung_grid_covers_the_lungs_and_a_margin_in_millimetres(tmp_path: Path) -> None:
    labels = np.zeros((60, 50, 40), np.uint8)
    labels[30:33, 2:5, 20] = 2
    write(tmp_path, "labels.nii.gz", labels, np.diag([1.0, 5.0, 10.0, 1.0]))
    grid = lung_grid(result(tmp_path), 10**9)
    assert grid.start == (15, 0, 18)
    assert grid.stop == (48, 8, 23)
    labels[:] = 0
    write(tmp_path, "labels.nii.gz", labels)
    assert lung_grid(result(tmp_path), 10**9).whole


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4, (40, 40, 40)).astype(np.uint8)
    write(tmp_path, "labels.nii.gz", noise)
    path = tmp_path / "labels.nii.gz"
    before, content = result(tmp_path), bytearray(path.read_bytes())
    path.write_bytes(content[:5000])
    with pytest.raises(ValueError, match=r"labels\.nii\.gz: damaged .*predict` again"):
        lung_grid(result(tmp_path), 1000)
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"labels\.nii\.gz: damaged or edited"):
        lung_grid(before, 1000)


@given(
    shape=st.tuples(*[st.integers(1, 60)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 10)] * 3),
    most=st.integers(1, 5000),
)
@settings(max_examples=60, deadline=None)
def test_thinning_limits_the_size_and_evens_the_spacing(
    shape: tuple[int, ...], spacing: tuple[float, ...], most: int
) -> None:
    grid = LayerGrid(shape, (0, 0, 0), shape, (1, 1, 1)).thinned(spacing, most)
    assert np.zeros(shape, bool)[grid.slices()].size <= most
    kept = [s * mm for s, mm in zip(grid.step, spacing, strict=True)]
    for axis, step in enumerate(grid.step):
        if step > 1:  # it was the finest axis before its last thinning
            assert (step - 1) * spacing[axis] <= min(kept) + 1e-9
