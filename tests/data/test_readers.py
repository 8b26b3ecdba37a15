"""Scans and masks from every format, and what a bad file is told."""

import gzip
import os
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
from PIL import Image
from scipy.spatial.transform import Rotation

from pyro_stitchnet.data.readers import read_mask, read_volume
from pyro_stitchnet.data.volume import Volume, axial_affine

SHAPE = (4, 5, 6)
HU = np.random.default_rng(0).integers(-1000, 500, SHAPE).astype(np.int16)
MASK = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.uint8)
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


def write(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Any format that has an affine, written without the package."""
    if path.name.endswith(NIFTI):
        nib.save(nib.Nifti1Image(array, affine), path)
        return path
    image = sitk.GetImageFromArray(array.T)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).flatten().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, path)
    return path


def refused(path: Path, *words: str, like: Volume | None = None) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: ")) as caught:
        read_volume(path) if like is None else read_mask(path, like=like)
    for word in words:
        assert word in str(caught.value)


@pytest.fixture
def samples() -> Path:
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("STITCHNET_SHARED", beside)) / "loader-samples"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set STITCHNET_SHARED to the folder of real files")
    return folder


# --- True files -----------------------------------------------------------------------------------


def test_a_true_series_equals_its_nrrd(samples: Path) -> None:
    dicom = read_volume(samples / "cip_ct64_dicom")
    nrrd = read_volume(samples / "ct-64.nrrd")
    assert np.array_equal(dicom.voxels, nrrd.voxels)
    assert dicom.voxels.shape == (64, 64, 79)
    assert (dicom.voxels.min(), dicom.voxels.max()) == (-1007, 1095)
    # DICOM's texts are rounded to 0.001 mm at the origin and 0.00001 mm between slices.
    np.testing.assert_allclose(dicom.affine, nrrd.affine, atol=5e-4)
    assert dicom.hounsfield
    assert nrrd.hounsfield
    assert (dicom.patient, nrrd.patient) == ("123456", "")


def test_true_slices_with_few_tags_are_read(samples: Path) -> None:
    volume = read_volume(samples / "lungmask_dicom")
    assert volume.voxels.shape == (512, 512, 2)
    assert volume.spacing == (0.625, 0.625, 1)
    assert volume.hounsfield


def test_a_true_label_map_lies_on_its_series(samples: Path, tmp_path: Path) -> None:
    scan = read_volume(samples / "cip_ct64_dicom")
    refused(samples / "lm-64.nrrd", "not 0 to 782", like=scan)
    regions = sitk.ReadImage(samples / "lm-64.nrrd")
    sitk.WriteImage(sitk.Cast(regions > 0, sitk.sitkUInt8), tmp_path / "lungs.nrrd")
    lungs = read_mask(tmp_path / "lungs.nrrd", like=scan).astype(bool)
    assert np.median(scan.voxels[lungs]) < -750
    assert np.median(scan.voxels[~lungs]) > -250


# --- Formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [*NIFTI, *ITK])
@settings(derandomize=True, deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_voxels_and_affine_come_back(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, seed: int
) -> None:
    affine = random_affine(seed)
    path = write(tmp_path_factory.getbasetemp() / f"scan{suffix}", HU, affine)
    volume = read_volume(path)
    assert np.array_equal(volume.voxels, HU)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_allclose(volume.affine, affine, atol=1e-3)
    assert (volume.hounsfield, volume.source) == (True, path)
    assert (volume.patient, volume.study) == ("", "")


def test_nifti_values_are_rescaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(HU, np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii")
    # nibabel writes the numbers as they are, and what they are to be scaled by.
    assert np.array_equal(read_volume(tmp_path / "a.nii").voxels, HU * 0.5 + 10)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_axes_of_length_1_are_made_or_left_out(tmp_path: Path, suffix: str) -> None:
    path, flat = tmp_path / f"a{suffix}", HU[..., 0]
    for array in (flat, HU[..., None]):
        if suffix == ".nii":
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)
        else:
            sitk.WriteImage(sitk.GetImageFromArray(array.T, isVector=False), path)
        read = read_volume(path)
        assert np.array_equal(read.voxels, array.reshape(4, 5, -1))
        assert read.spacing == (1, 1, 1)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_several_time_points_or_channels_are_refused(tmp_path: Path, suffix: str) -> None:
    path, films = tmp_path / f"a{suffix}", np.stack([HU, HU], -1)
    if suffix == ".nii":
        nib.save(nib.Nifti1Image(films, np.eye(4)), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(films.T, isVector=False), path)
    refused(path, "give one channel and one time point")
    if suffix != ".nii":
        sitk.WriteImage(sitk.GetImageFromArray(films, isVector=True), path)
        refused(path, "several channels")


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.int64])
def test_arrays_are_slices(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "a.npy", HU.astype(dtype))
    np.save(tmp_path / "b.npy", HU[0].astype(dtype))
    volume = read_volume(tmp_path / "a.npy")
    assert np.array_equal(volume.axial(), HU)
    assert volume.hounsfield
    assert np.array_equal(read_volume(tmp_path / "b.npy").axial(), HU[:1])


@pytest.mark.parametrize("array", [np.array([["x"]]), np.array([[1j]]), np.zeros((2, 2), "M8[s]")])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", "an array of", "save an array of numbers")


@pytest.mark.parametrize("suffix", [".nii", ".npy", ".mha"])
@pytest.mark.parametrize(("low", "hounsfield"), [(-201, True), (-200, False), (0, False)])
def test_units_go_by_the_lowest_value(
    tmp_path: Path, suffix: str, low: int, hounsfield: bool
) -> None:
    values = np.array([[[low, 900]]], np.int16)
    path = tmp_path / f"a{suffix}"
    np.save(path, values) if suffix == ".npy" else write(path, values, np.eye(4))
    assert read_volume(path).hounsfield is hounsfield


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, strange: float) -> None:
    values = HU.astype(np.float32)
    values[1, 2, 3] = strange
    refused(write(tmp_path / "a.nii", values, np.eye(4)), "infinite or not a number", "air")


@pytest.mark.parametrize("suffix", [*NIFTI, *ITK, ".npy", ".png", ".jpg", ".dcm", ""])
def test_missing_and_foreign_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(str(path))}: missing; give"):
        read_volume(path)
    path.write_bytes(b"no scan at all")
    refused(path)
    path.write_bytes(b"")
    refused(path)


def test_suffixes_may_be_upper_case(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", HU, np.eye(4)).rename(tmp_path / "a.b.NII.GZ")
    assert np.array_equal(read_volume(tmp_path / "a.b.NII.GZ").voxels, HU)


def test_only_dicom_has_series(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", HU, np.eye(4))
    with pytest.raises(ValueError, match=r"a\.nii: only DICOM has series; leave out series='1\.2'"):
        read_volume(path, series="1.2")
    with pytest.raises(ValueError, match="holds no DICOM slices"):
        read_volume(tmp_path, series="1.2")


# --- Pictures -------------------------------------------------------------------------------------


def save(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_grey_pictures_are_one_axial_slice(tmp_path: Path, mode: str) -> None:
    Image.fromarray(GREY).convert(mode).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert np.array_equal(volume.axial(), GREY[None])
    assert volume.voxels.dtype == np.float32
    assert (volume.hounsfield, volume.source) == (False, tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_grey_saved_as_colour_jpeg_is_grey(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY).convert("RGB").save(tmp_path / f"a{suffix}", quality=95)
    read = read_volume(tmp_path / f"a{suffix}").voxels[0]
    assert np.abs(read - GREY).mean() < 4


def test_16_bit_pictures_have_the_scale_of_8_bit_ones(tmp_path: Path) -> None:
    values = np.array([[0, 257, 1000, 65535]], np.uint16)
    read = read_volume(save(tmp_path / "a.png", values)).voxels
    np.testing.assert_allclose(read, [values / 257], rtol=1e-6)
    assert (read.min(), read.max()) == (0, 255)


def test_coloured_pictures_are_refused(tmp_path: Path) -> None:
    grey = np.stack([GREY // 2] * 3, -1)
    noisy, marked = grey.copy(), grey.copy()
    noisy[2, 3, 0] += 3
    marked[2, 3, 0] += 4
    assert read_volume(save(tmp_path / "a.png", noisy)).voxels.shape == (1, 6, 7)
    refused(save(tmp_path / "a.png", marked), "not grey; save it as 8-bit or 16-bit grey")


def test_pictures_are_the_slices_of_one_scan(tmp_path: Path) -> None:
    stack = np.stack([GREY, GREY[::-1], GREY // 2])
    paths = [save(tmp_path / f"{c}.png", slice_) for c, slice_ in zip("cab", stack, strict=True)]
    volume = read_volume(paths)
    assert np.array_equal(volume.voxels, stack)
    assert np.array_equal(volume.axial(), stack)
    assert (volume.source, volume.hounsfield) == (tmp_path, False)
    assert np.array_equal(volume.affine, axial_affine())


def test_pictures_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    one, other = save(tmp_path / "a.png", GREY), save(tmp_path / "b.png", GREY[1:])
    with pytest.raises(ValueError, match=r"b\.png: is \(5, 7\), but a\.png \(6, 7\)"):
        read_volume([one, other])
    scan = write(tmp_path / "a.nii", HU, np.eye(4))
    with pytest.raises(ValueError, match=r"a\.nii: only pictures"):
        read_volume([one, scan])
    with pytest.raises(FileNotFoundError, match=r"c\.png: missing"):
        read_volume([one, tmp_path / "c.png"])
    with pytest.raises(ValueError, match="needs at least one"):
        read_volume([])


# --- Masks ----------------------------------------------------------------------------------------


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
) -> None:
    like = Volume(HU.astype(np.float32), random_affine(seed), True, Path("scan"))
    axes = np.zeros((4, 4))  # from the mask's voxels to the scan's
    axes[3, 3] = 1
    for mask_axis, (scan_axis, sign) in enumerate(zip(order, flips, strict=True)):
        axes[scan_axis, mask_axis] = sign
        axes[scan_axis, 3] = 0 if sign > 0 else SHAPE[scan_axis] - 1
    turned = np.zeros([SHAPE[axis] for axis in order], np.uint8)
    for index in np.ndindex(turned.shape):
        turned[index] = MASK[tuple(apply_affine(axes, index).astype(int))]
    path = tmp_path_factory.getbasetemp() / f"mask{suffix}"
    found = read_mask(write(path, turned, like.affine @ axes), like=like)
    assert found.dtype == np.uint8
    assert np.array_equal(found, MASK)


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    affine = random_affine(3)
    like = Volume(HU.astype(np.float32), affine, True, Path("scan"))
    path, remedy = tmp_path / "mask.nii", "export the mask on the scan's grid"
    refused(write(path, MASK[:-1], affine), "(3, 5, 6), its scan scan (4, 5, 6)", like=like)
    for moved, wrong in ((0.05, False), (0.2, True)):  # as parts of a voxel
        other = affine.copy()
        other[:3, 3] += moved * affine[:3, 0]
        write(path, MASK, other)
        if wrong:
            refused(path, "lies elsewhere than its scan scan", remedy, like=like)
        else:
            assert np.array_equal(read_mask(path, like=like), MASK)
    refused(write(path, MASK, affine @ np.diag([1, 1, 1.1, 1])), "lies elsewhere", like=like)
    refused(write(path, MASK, affine @ np.diag([1, -1, 1, 1])), "lies elsewhere", like=like)


@pytest.mark.parametrize(
    ("value", "words"), [(256, "0 to 256"), (-1, "-1 to 3"), (0.5, "whole numbers of 0 to 255")]
)
def test_a_mask_holds_whole_numbers_of_one_byte(tmp_path: Path, value: float, words: str) -> None:
    mask = np.where(MASK == 1, 0, MASK).astype(np.float32)
    mask[0, 0] = value
    mask[0, 1] = 0
    like = Volume(HU.astype(np.float32), np.eye(4), True, Path("scan"))
    refused(write(tmp_path / "a.nii", mask, np.eye(4)), words, "a label map", like=like)
    mask[0, 0] = 255
    assert np.array_equal(read_mask(write(tmp_path / "a.nii", mask, np.eye(4)), like=like), mask)


def test_masks_of_pictures_are_values_or_palette_indices(tmp_path: Path) -> None:
    like = read_volume(save(tmp_path / "scan.png", GREY))
    mask = GREY % 4
    grey = save(tmp_path / "grey.png", mask)
    picture = Image.fromarray(mask).convert("P")
    picture.putdata(mask.flatten().tolist())
    picture.putpalette([0, 0, 0, 90, 200, 90, 250, 200, 0, 250, 0, 0])
    picture.save(tmp_path / "palette.png")
    for path in (grey, tmp_path / "palette.png"):
        assert np.array_equal(read_mask(path, like=like)[0], mask)
    both = [grey, tmp_path / "palette.png"]
    assert np.array_equal(read_mask(both, like=read_volume([grey] * 2)), [mask, mask])
    refused(save(tmp_path / "rgb.png", np.stack([mask] * 3, -1)), "not of mode RGB", like=like)
    refused(save(tmp_path / "16.png", mask.astype(np.uint16)), "not of mode I;16", like=like)


# --- Broken files ---------------------------------------------------------------------------------


def nifti(path: Path) -> Path:
    return write(path, HU, np.diag([2.0, 2, 3, 1]))


def picture(path: Path) -> Path:
    return save(path, GREY)


def array(path: Path) -> Path:
    np.save(path, HU)
    return path


@pytest.mark.parametrize(
    ("suffix", "make"),
    [
        (".nii", nifti),
        (".nii.gz", nifti),
        (".nrrd", nifti),
        (".mha", nifti),
        (".png", picture),
        (".jpg", picture),
        (".npy", array),
    ],
)
@settings(derandomize=True, deadline=None, max_examples=40)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    make: Callable[[Path], Path],
    data: st.DataObject,
) -> None:
    path = make(tmp_path_factory.getbasetemp() / f"damaged{suffix}")
    like, packed = read_volume(path), suffix.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    where = st.integers(0, len(content) - 1)
    for at, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), max_size=4)):
        content[at] = value
    content = content[: data.draw(where | st.just(len(content)))]
    path.write_bytes(gzip.compress(content) if packed else content)
    for read in (lambda: read_volume(path), lambda: read_mask(path, like=like)):
        try:
            read()
            told = f"{path}: "
        except ValueError as error:
            told = str(error)
        assert told.startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", [*NIFTI, ".nrrd", ".mha", ".png", ".npy"])
def test_a_file_cut_in_half_is_refused(tmp_path: Path, suffix: str) -> None:
    path = {".png": picture, ".npy": array}.get(suffix, nifti)(tmp_path / f"a{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "unreadable")
