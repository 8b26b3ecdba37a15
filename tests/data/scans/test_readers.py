"""Scans of every format, and errors of bad files."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import voxel_sizes
from PIL import Image
from scipy.spatial.transform import Rotation

from pyro_stitchnet.data.scans.masks import read_mask
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume, axial_affine

Write = Callable[..., Path]

SHAPE = (4, 5, 6)
HU = np.random.default_rng(0).integers(-1000, 500, SHAPE).astype(np.int16)
GREY = np.random.default_rng(2).integers(0, 256, (6, 7)).astype(np.uint8)
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


def spacing(volume: Volume) -> tuple[float, ...]:
    return tuple(voxel_sizes(volume.affine).tolist())


def refused(path: Path, *words: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: ")) as caught:
        read_volume(path)
    for word in words:
        assert word in str(caught.value)


def test_a_real_series_equals_its_nrrd(samples: Path) -> None:
    dicom = read_volume(samples / "cip_ct64_dicom")
    nrrd = read_volume(samples / "ct-64.nrrd")
    assert np.array_equal(dicom.voxels, nrrd.voxels)
    assert dicom.voxels.shape == (64, 64, 79)
    assert (dicom.voxels.min(), dicom.voxels.max()) == (-1007, 1095)
    # DICOM's decimal strings are rounded to 0.001 mm at the origin, 0.00001 mm between slices.
    np.testing.assert_allclose(dicom.affine, nrrd.affine, atol=5e-4)
    assert dicom.hounsfield
    assert nrrd.hounsfield
    assert dicom.study
    assert nrrd.study == ""


def test_real_slices_with_few_tags_are_read(samples: Path) -> None:
    volume = read_volume(samples / "lungmask_dicom")
    assert volume.voxels.shape == (512, 512, 2)
    assert spacing(volume) == (0.625, 0.625, 1)
    assert volume.hounsfield


@pytest.mark.parametrize("suffix", [*NIFTI, *ITK])
@settings(derandomize=True, deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_voxels_and_affine_come_back(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, seed: int, write_volume: Write
) -> None:
    affine = random_affine(seed)
    path = write_volume(tmp_path_factory.getbasetemp() / f"scan{suffix}", HU, affine)
    volume = read_volume(path)
    assert np.array_equal(volume.voxels, HU)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.affine, affine, atol=1e-3)
    assert (volume.hounsfield, volume.source) == (True, path)
    assert volume.study == ""


def test_nifti_values_are_rescaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(HU, np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    # nibabel writes the numbers unchanged, and the scaling into the header.
    assert np.array_equal(read_volume(tmp_path / "a.nii").voxels, HU * 0.5 + 10)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_axes_of_length_1_are_added_or_dropped(tmp_path: Path, suffix: str) -> None:
    path, flat = tmp_path / f"a{suffix}", HU[..., 0]
    for array in (flat, HU[..., None]):
        if suffix == ".nii":
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)
        else:
            sitk.WriteImage(sitk.GetImageFromArray(array.T, isVector=False), path)
        read = read_volume(path)
        assert np.array_equal(read.voxels, array.reshape(4, 5, -1))
        assert spacing(read) == (1, 1, 1)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_several_time_points_or_channels_are_refused(tmp_path: Path, suffix: str) -> None:
    path, series = tmp_path / f"a{suffix}", np.stack([HU, HU], -1)
    if suffix == ".nii":
        nib.save(nib.Nifti1Image(series, np.eye(4)), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(series.T, isVector=False), path)
    refused(path, "give one channel and one time point")
    if suffix != ".nii":
        sitk.WriteImage(sitk.GetImageFromArray(series, isVector=True), path)
        refused(path, "several channels")


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.int64])
def test_arrays_are_slices(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "a.npy", HU.astype(dtype))
    np.save(tmp_path / "b.npy", HU[0].astype(dtype))
    volume = read_volume(tmp_path / "a.npy")
    assert np.array_equal(volume.axial(), HU)
    assert volume.hounsfield
    assert volume.voxels.dtype == np.float32
    assert np.array_equal(read_volume(tmp_path / "b.npy").axial(), HU[:1])


@pytest.mark.parametrize("array", [np.array([["x"]]), np.array([[1j]]), np.zeros((2, 2), "M8[s]")])
def test_arrays_without_numbers_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", "an array of", "save an array of numbers")


def test_bool_objects_and_other_files_are_no_arrays_of_grey_values(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, HU > 0)
    refused(path, "an array of bool is a mask, not a scan")
    like = Stack.of(Volume(HU.astype(np.float32), axial_affine(), True, Path("scan")))
    assert np.array_equal(read_mask(path, like=like), HU > 0)
    np.save(path, np.array([None, 1]))
    refused(path, "objects", "save an array of numbers")
    np.savez(tmp_path / "b.npz", HU)
    for content in (b"no array", b"", (tmp_path / "b.npz").read_bytes()):
        path.write_bytes(content)
        refused(path, "it does not begin like a file of numpy.save")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_volume_is_a_copy_of_its_file(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "a.npy", HU.astype(dtype))
    volume = read_volume(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.zeros_like(HU, dtype))
    assert np.array_equal(volume.axial(), HU)


@pytest.mark.parametrize("suffix", [".nii", ".npy", ".mha"])
@pytest.mark.parametrize(("low", "hounsfield"), [(-201, True), (-200, False), (0, False)])
def test_units_depend_on_the_lowest_value(
    tmp_path: Path, suffix: str, low: int, hounsfield: bool, write_volume: Write
) -> None:
    values = np.array([[[low, 900]]], np.int16)
    path = tmp_path / f"a{suffix}"
    np.save(path, values) if suffix == ".npy" else write_volume(path, values, np.eye(4))
    assert read_volume(path).hounsfield is hounsfield


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(
    tmp_path: Path, value: float, write_volume: Write
) -> None:
    values = HU.astype(np.float32)
    values[1, 2, 3] = value
    refused(write_volume(tmp_path / "a.nii", values, np.eye(4)), "infinite or not a number", "air")
    np.save(tmp_path / "a.npy", np.full((1, 2, 2), 1e300))  # beyond float32
    refused(tmp_path / "a.npy", "infinite or not a number")


@pytest.mark.parametrize("factor", [1e30, -1e6])
def test_values_that_no_ct_has_are_refused(
    tmp_path: Path, factor: float, write_volume: Write
) -> None:
    values = HU.astype(np.float64) * factor
    refused(write_volume(tmp_path / "a.nii", values, np.eye(4)), "no CT has", "Hounsfield units")


@pytest.mark.parametrize("suffix", [*NIFTI, *ITK, ".npy", ".png", ".jpg", ".dcm", ""])
def test_missing_and_foreign_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(str(path))}: missing; give"):
        read_volume(path)
    path.write_bytes(b"no scan at all")
    refused(path)
    path.write_bytes(b"")
    refused(path)


def test_suffixes_may_be_upper_case(tmp_path: Path, write_volume: Write) -> None:
    write_volume(tmp_path / "a.nii.gz", HU, np.eye(4)).rename(tmp_path / "a.b.NII.GZ")
    assert np.array_equal(read_volume(tmp_path / "a.b.NII.GZ").voxels, HU)


def test_only_dicom_has_series(tmp_path: Path, write_volume: Write) -> None:
    path = write_volume(tmp_path / "a.nii", HU, np.eye(4))
    with pytest.raises(ValueError, match=r"a\.nii: only DICOM has series; leave out series='1\.2'"):
        read_volume(path, series="1.2")
    with pytest.raises(ValueError, match=r"a\.nii: only DICOM has series"):
        read_volume([path], series="1.2")
    (tmp_path / "empty").mkdir()
    for series in (None, "1.2"):
        with pytest.raises(ValueError, match=r"empty: holds no DICOM slices .*give the folder"):
            read_volume(tmp_path / "empty", series=series)


def make(path: Path, write_volume: Write) -> Path:
    """Write a valid file of the format of its name."""
    if path.suffix in (".png", ".jpg"):
        Image.fromarray(GREY).save(path)
    elif path.suffix == ".npy":
        np.save(path, HU)
    else:
        write_volume(path, HU, np.diag([2.0, 2, 3, 1]))
    return path


@pytest.mark.parametrize("suffix", [*NIFTI, ".nrrd", ".mha", ".png", ".jpg", ".npy"])
@settings(derandomize=True, deadline=None, max_examples=40)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    write_volume: Write,
    data: st.DataObject,
) -> None:
    path = make(tmp_path_factory.getbasetemp() / f"damaged{suffix}", write_volume)
    like, packed = Stack.of(read_volume(path)), suffix.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    where = st.integers(0, len(content) - 1)
    for at, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), max_size=4)):
        content[at] = value
    content = content[: data.draw(where | st.just(len(content)))]
    path.write_bytes(gzip.compress(content) if packed else content)
    for read in (lambda: read_volume(path), lambda: read_mask(path, like=like)):
        try:
            read()
            message = f"{path}: "
        except ValueError as error:
            message = str(error)
        assert message.startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", [*NIFTI, ".nrrd", ".mha", ".png", ".npy"])
def test_a_file_cut_in_half_is_refused(tmp_path: Path, suffix: str, write_volume: Write) -> None:
    path = make(tmp_path / f"a{suffix}", write_volume)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "unreadable")
