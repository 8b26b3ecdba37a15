"""Grey values of DICOM series: rescaling, padding, units, compression."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pyro_stitchnet.data.scans.common import looks_hounsfield
from pyro_stitchnet.data.scans.dicom import open_series
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.volume import Volume

Write = Callable[..., Path]

SHAPE = (5, 6, 4)  # slices, rows, columns; different, so that exchanged axes are detected

# Stored values are unique, so that a value identifies its voxel.
STORED = np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


def read(path: Path) -> Volume:
    return open_series(path).volume()


def test_each_slice_has_its_own_rescaling(tmp_path: Path, write_slice: Write) -> None:
    for k, (slope, intercept) in enumerate([(1, -1024), (0.5, -1000.25), (2, 0)]):
        place = {"ImagePositionPatient": [0, 0, k]}
        name = tmp_path / f"{k}.dcm"
        write_slice(name, STORED[k], RescaleSlope=slope, RescaleIntercept=intercept, **place)
    expected = np.stack([STORED[0] - 1024, STORED[1] * 0.5 - 1000.25, STORED[2] * 2.0])
    assert np.array_equal(read(tmp_path).voxels, expected.T)


@pytest.mark.parametrize("kind", ["HU", "hu", "HU_MOD", "US", "Hounsfield Units"])
def test_hounsfield_units_have_many_names(tmp_path: Path, kind: str, write_series: Write) -> None:
    assert read(write_series(tmp_path, STORED, RescaleType=kind)).hounsfield


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_stored_values_keep_their_sign(tmp_path: Path, dtype: type, write_slice: Write) -> None:
    extremes: np.ndarray = np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max]], dtype)
    write_slice(tmp_path / "a.dcm", extremes, RescaleIntercept=0)
    assert np.array_equal(read(tmp_path).voxels[..., 0].T, extremes)


@pytest.mark.parametrize(
    ("padding", "air"),
    [
        ({"PixelPaddingValue": -2000}, [-2000]),
        ({"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1900}, [-2000, -1950, -1900]),
        ({"PixelPaddingValue": -1900, "PixelPaddingRangeLimit": -2000}, [-2000, -1950, -1900]),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_padding_is_air(
    tmp_path: Path, padding: dict[str, int], air: list[int], wrapped: bool, write_slice: Write
) -> None:
    stored = np.array([[-2001, -2000, -1950, -1900, -1899, 0, 100]], np.int16)
    write_slice(tmp_path / "a.dcm", stored, RescaleIntercept=10)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    for name, value in padding.items():
        tag = pydicom.datadict.tag_for_keyword(name)
        assert tag is not None
        dataset.add_new(tag, "US" if wrapped else "SS", value % 65536 if wrapped else value)
    dataset.save_as(tmp_path / "a.dcm")
    expected = np.where(np.isin(stored, air), -1024, stored + 10)
    assert np.array_equal(read(tmp_path).voxels[..., 0].T, expected)


@pytest.mark.parametrize(
    ("low", "intercept", "hounsfield"),
    [(0, -1024, True), (0, 0, True), (-201, None, True), (-200, None, False)],
)
def test_units_without_rescaling_depend_on_the_lowest_value(
    tmp_path: Path, low: int, intercept: int | None, hounsfield: bool, write_series: Write
) -> None:
    stored = np.array([[low, 500]], np.int16)
    rescale: dict[str, Any] = {"RescaleIntercept": intercept, "RescaleSlope": None}
    volume = read(write_series(tmp_path, stored[None], **rescale))
    assert volume.hounsfield is hounsfield
    assert np.array_equal(volume.voxels[..., 0].T, stored + (intercept or 0))


@pytest.mark.parametrize(("value", "expected"), [(-1000, True), (-200, False), (255, False)])
def test_hounsfield_units_reach_below_minus_200(value: float, expected: bool) -> None:
    assert looks_hounsfield(np.array([0, value])) is expected


def test_implicit_value_representations_are_read(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, STORED, PixelPaddingValue=-5, PixelPaddingRangeLimit=5)
    for file in tmp_path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(file, implicit_vr=True, little_endian=True)
    expected = np.where(STORED <= 5, -1024, STORED - 1024)  # -5 keeps its sign
    assert np.array_equal(read(tmp_path).voxels, expected.T)


NOISE = np.random.default_rng(0).integers(-1024, 3000, (1, 64, 64)).astype(np.int16)
COMPRESSORS = {
    "JPEG": (JPEGLossless, JPEGLosslessSV1),
    "JPEG2000": (JPEG2000Lossless,),
}


def write_compressed(file: Path, compressor: str) -> Path:
    """Noise in Hounsfield units, written by SimpleITK."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.SetFileName(file)
    writer.Execute(sitk.GetImageFromArray(NOISE))
    dataset = pydicom.dcmread(file)
    assert dataset.file_meta.TransferSyntaxUID in COMPRESSORS[compressor]
    dataset.Modality, dataset.PixelSpacing, dataset.ImagePositionPatient = "CT", [1, 1], [0, 0, 0]
    dataset.save_as(file)
    return file


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_compressed_pixels_are_read(tmp_path: Path, compressor: str) -> None:
    file = write_compressed(tmp_path / "a.dcm", compressor)
    assert np.array_equal(read(file).voxels, NOISE.T)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_truncated_compressed_pixels_are_refused(tmp_path: Path, compressor: str) -> None:
    file = write_compressed(tmp_path / "a.dcm", compressor)
    content = file.read_bytes()
    for lost in (len(content) // 2, 100, 9):  # the last 8 bytes end the pixels
        file.write_bytes(content[:-lost])
        with pytest.raises(ValueError, match=r"a\.dcm: unreadable .* fetch the file again"):
            read(file)


@pytest.mark.parametrize("tags", [{"Rows": 40}, {"Columns": 40}, {"Rows": 72}, {"Columns": 72}])
@pytest.mark.parametrize("kind", ["raw", "RLE", *COMPRESSORS, "JPEG-LS"])
def test_pixels_of_another_size_than_the_header_says_are_refused(
    tmp_path: Path, kind: str, tags: dict[str, int], write_slice: Write
) -> None:
    file = tmp_path / "a.dcm"
    if kind in COMPRESSORS:
        write_compressed(file, kind)
    else:
        write_slice(file, NOISE[0], SliceThickness=1)
    dataset = pydicom.dcmread(file)
    if kind in ("RLE", "JPEG-LS"):
        dataset.compress(RLELossless if kind == "RLE" else JPEGLSLossless)
    dataset.save_as(file)
    assert read(file).voxels.shape == (64, 64, 1)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(file)
    with pytest.raises(ValueError, match=r"a\.dcm: unreadable .* fetch the file again"):
        read(file)


def test_a_mask_compressed_with_losses_is_refused(tmp_path: Path, write_slice: Write) -> None:
    write_slice(tmp_path / "a.dcm", STORED[0], LossyImageCompression="01")
    assert read_volume(tmp_path).voxels.shape == (4, 6, 1)
    with pytest.raises(ValueError, match="a mask that was compressed with losses"):
        read_volume(tmp_path, mask=True)
