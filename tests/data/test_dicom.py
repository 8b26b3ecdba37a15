"""DICOM series: what is read, from where in the patient, and what a bad folder is told."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    generate_uid,
)
from scipy.spatial.transform import Rotation

from pyro_stitchnet.data.dicom import LPS_TO_RAS, Series, list_series, looks_hounsfield, read_series

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
SHAPE = (5, 6, 4)  # slices, rows, columns; three lengths, so that no exchange goes unseen

# Stored values all different, so that a value tells its voxel.
STORED = np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


def write_slice(file: Path, stored: np.ndarray, **tags: Any) -> pydicom.Dataset:
    """One CT slice with ordinary tags; those of ``tags`` that are None are left out."""
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2",
        "PatientID": "P7",
        "Modality": "CT",
        "SliceThickness": 2.5,
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [0.75, 0.5],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        **tags,
    }
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.PixelData = stored.tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return dataset


def write_series(
    folder: Path,
    stored: np.ndarray = STORED,
    step: Sequence[float] = (0, 0, 2.5),
    names: Sequence[str] = tuple("dbeac"),
    **tags: Any,
) -> Path:
    """A series of slices one ``step`` apart, whose files' names say nothing of their order."""
    for k, picture in enumerate(stored):
        place = {
            "ImagePositionPatient": [round(float(k * s), 8) + 7 for s in step],
            "InstanceNumber": k,
        }
        write_slice(folder / f"{names[k]}.dcm", picture, **{**place, **tags})
    return folder


def refused(path: Path, *words: str, begins: Path | None = None, uid: str | None = None) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"{begins or path}: ")) as caught:
        read_series(path, uid)
    for word in words:
        assert word in str(caught.value)


# --- Where voxels lie -----------------------------------------------------------------------------


def assert_every_voxel_lies_where_its_header_says(folder: Path) -> None:
    """Equation C.7.6.2.1-1 of the DICOM standard, pixel by pixel."""
    volume = read_series(folder)
    found = {
        value: apply_affine(volume.affine, index)
        for index, value in np.ndenumerate(volume.voxels + 1024)
    }
    assert len(found) == STORED.size
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        position = np.array(header.ImagePositionPatient)
        along_row, down_column = np.array(header.ImageOrientationPatient).reshape(2, 3)
        between_rows, between_columns = header.PixelSpacing
        for (row, column), value in np.ndenumerate(header.pixel_array):
            lps = position + along_row * between_columns * column
            lps = lps + down_column * between_rows * row
            np.testing.assert_allclose(found[value], lps * [-1, -1, 1], atol=1e-4)


@pytest.mark.parametrize(
    ("orientation", "step"),
    [
        (AXIAL, (0, 0, 2.5)),
        (AXIAL, (0, 0, -2.5)),
        ((-1, 0, 0, 0, -1, 0), (0, 0, 2.5)),
        (SAGITTAL, (3, 0, 0)),
        (SAGITTAL, (-3, 0, 0)),
        ((1, 0, 0, 0, 0, -1), (0, 1.5, 0)),
        (AXIAL, (0, 0.7, 2.4)),  # a tilted gantry
    ],
)
def test_every_voxel_lies_where_its_header_says(
    tmp_path: Path, orientation: Sequence[float], step: Sequence[float]
) -> None:
    write_series(tmp_path, step=step, ImageOrientationPatient=list(orientation))
    assert_every_voxel_lies_where_its_header_says(tmp_path)


@settings(derandomize=True, deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), sign=st.sampled_from([-1, 1]))
def test_every_voxel_of_an_oblique_series_lies_where_its_header_says(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sign: int
) -> None:
    turn = Rotation.random(rng=seed).as_matrix().round(9)
    folder = tmp_path_factory.mktemp("oblique")
    orientation = [*turn[:, 0], *turn[:, 1]]
    write_series(folder, step=sign * 2.5 * turn[:, 2], ImageOrientationPatient=orientation)
    assert_every_voxel_lies_where_its_header_says(folder)


def test_axes_are_columns_rows_and_slices_along_the_normal(tmp_path: Path) -> None:
    up = read_series(write_series(tmp_path / "up"))
    down = read_series(write_series(tmp_path / "down", step=(0, 0, -2.5)))
    assert up.voxels.shape == (4, 6, 5)
    assert up.voxels.dtype == np.float32
    assert up.spacing == (0.5, 0.75, 2.5)
    assert np.array_equal(up.voxels, STORED.T - 1024)
    assert np.array_equal(down.voxels, STORED[::-1].T - 1024)
    assert up.affine[2, 2] == down.affine[2, 2] == 2.5


def test_simpleitk_reads_the_same(tmp_path: Path) -> None:
    turn = Rotation.from_euler("xyz", [20, -30, 10], degrees=True).as_matrix().round(9)
    orientation = [*turn[:, 0], *turn[:, 1]]
    write_series(tmp_path, step=2.5 * turn[:, 2], ImageOrientationPatient=orientation)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image, volume = reader.Execute(), read_series(tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(image).T, volume.voxels)
    origin, index = image.GetOrigin(), (1, 2, 3)
    for where, point in (((0, 0, 0), origin), (index, image.TransformIndexToPhysicalPoint(index))):
        ras = apply_affine(LPS_TO_RAS, point)
        np.testing.assert_allclose(apply_affine(volume.affine, where), ras, atol=1e-4)


def test_one_file_is_one_slice_as_thick_as_it_says(tmp_path: Path) -> None:
    write_series(tmp_path)
    volume = read_series(tmp_path / "b.dcm")
    assert np.array_equal(volume.voxels[..., 0], STORED[1].T - 1024)
    assert volume.spacing == (0.5, 0.75, 2.5)
    assert volume.source == tmp_path / "b.dcm"


def test_without_positions_slices_follow_their_numbers(tmp_path: Path) -> None:
    write_series(tmp_path, ImagePositionPatient=None, ImageOrientationPatient=None)
    volume = read_series(tmp_path)
    assert np.array_equal(volume.voxels, STORED.T - 1024)
    assert volume.spacing == (0.5, 0.75, 2.5)
    assert np.array_equal(volume.axial(), STORED - 1024)


@pytest.mark.parametrize("tag", ["InstanceNumber", "SliceThickness"])
def test_slices_without_any_place_are_refused(tmp_path: Path, tag: str) -> None:
    tags: dict[str, Any] = {"ImagePositionPatient": None, tag: None}
    write_series(tmp_path, **tags)
    refused(
        tmp_path,
        "its place among the slices is unknown",
        "InstanceNumber and SliceThickness",
        begins=tmp_path / ("a.dcm" if tag == "InstanceNumber" else "d.dcm"),
    )


def test_some_slices_without_a_position_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    write_slice(tmp_path / "z.dcm", STORED[0], ImagePositionPatient=None, InstanceNumber=9)
    with pytest.raises(ValueError, match="all slices need ImagePositionPatient"):
        read_series(tmp_path)


# --- Grey values ----------------------------------------------------------------------------------


def test_each_slice_has_its_own_rescaling(tmp_path: Path) -> None:
    for k, (slope, intercept) in enumerate([(1, -1024), (0.5, -1000.25), (2, 0)]):
        place = {"ImagePositionPatient": [0, 0, k]}
        name = tmp_path / f"{k}.dcm"
        write_slice(name, STORED[k], RescaleSlope=slope, RescaleIntercept=intercept, **place)
    expected = np.stack([STORED[0] - 1024, STORED[1] * 0.5 - 1000.25, STORED[2] * 2.0])
    assert np.array_equal(read_series(tmp_path).voxels, expected.T)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_stored_values_keep_their_sign(tmp_path: Path, dtype: type) -> None:
    extremes: np.ndarray = np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max]], dtype)
    write_slice(tmp_path / "a.dcm", extremes, RescaleIntercept=0)
    assert np.array_equal(read_series(tmp_path).voxels[..., 0].T, extremes)


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
    tmp_path: Path, padding: dict[str, int], air: list[int], wrapped: bool
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
    assert np.array_equal(read_series(tmp_path).voxels[..., 0].T, expected)


@pytest.mark.parametrize(
    ("low", "intercept", "hounsfield"),
    [(0, -1024, True), (0, 0, True), (-201, None, True), (-200, None, False)],
)
def test_units_without_a_rescaling_go_by_the_lowest_value(
    tmp_path: Path, low: int, intercept: int | None, hounsfield: bool
) -> None:
    stored = np.array([[low, 500]], np.int16)
    rescale: dict[str, Any] = {"RescaleIntercept": intercept, "RescaleSlope": None}
    volume = read_series(write_series(tmp_path, stored[None], **rescale))
    assert volume.hounsfield is hounsfield
    assert np.array_equal(volume.voxels[..., 0].T, stored + (intercept or 0))


@pytest.mark.parametrize(("value", "expected"), [(-1000, True), (-200, False), (255, False)])
def test_hounsfield_units_reach_below_minus_200(value: float, expected: bool) -> None:
    assert looks_hounsfield(np.array([0, value])) is expected


def test_implicit_types_are_read(tmp_path: Path) -> None:
    write_series(tmp_path, PixelPaddingValue=-2000)
    for file in tmp_path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(file, implicit_vr=True, little_endian=True)
    assert np.array_equal(read_series(tmp_path).voxels, STORED.T - 1024)


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
    dataset.Modality, dataset.PixelSpacing = "CT", [1, 1]
    dataset.save_as(file)
    return file


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_compressed_pixels_are_read(tmp_path: Path, compressor: str) -> None:
    file = write_compressed(tmp_path / "a.dcm", compressor)
    assert np.array_equal(read_series(file).voxels, NOISE.T)


# --- Folders --------------------------------------------------------------------------------------


def test_a_mixed_folder_is_listed(tmp_path: Path) -> None:
    write_series(tmp_path / "st1" / "se1", SeriesDescription="Lung")
    write_series(tmp_path / "st1" / "se2", STORED[:2], SeriesInstanceUID="1.2.9", PatientID=None)
    write_slice(tmp_path / "mr", STORED[0], SeriesInstanceUID="1.2.5", Modality="MR")
    scout = {"SeriesInstanceUID": "1.2.4", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_slice(tmp_path / "scout.dcm", STORED[0], **scout)
    report = pydicom.Dataset()
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.6"
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "empty.dcm").write_bytes(b"")
    first, second = tmp_path / "st1" / "se1", tmp_path / "st1" / "se2"
    found = list_series(tmp_path)
    assert found == [
        Series("1.2.3", "Lung", "CT", "P7", "1.2", tuple(first / f"{c}.dcm" for c in "dbeac")),
        Series("1.2.5", "", "MR", "P7", "1.2", (tmp_path / "mr",)),
        Series("1.2.9", "", "CT", "", "1.2", (second / "d.dcm", second / "b.dcm")),
    ]
    assert [series.slices for series in found] == [5, 1, 2]


def test_of_several_series_one_is_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "one", SeriesDescription="Lung")
    write_series(tmp_path / "two", STORED[:2], SeriesInstanceUID="1.2.9")
    words = ("2 CT series", "a folder of its own", "series=", "1.2.3: CT, Lung, 5 slices")
    refused(tmp_path, *words, "1.2.9: CT, no description, 2 slices")
    refused(tmp_path, "no series 8.8", "1.2.3: CT, Lung, 5 slices", uid="8.8")
    assert read_series(tmp_path, "1.2.3").voxels.shape == (4, 6, 5)
    assert read_series(tmp_path, "1.2.9").voxels.shape == (4, 6, 2)


def test_the_one_ct_series_is_read_whatever_else_there_is(tmp_path: Path) -> None:
    write_series(tmp_path, Modality=None)
    write_slice(tmp_path / "mr", STORED[0], SeriesInstanceUID="1.2.5", Modality="MR")
    volume = read_series(tmp_path)
    assert volume.voxels.shape == (4, 6, 5)
    assert (volume.patient, volume.study, volume.source) == ("P7", "1.2", tmp_path)


def test_what_files_leave_out_is_empty(tmp_path: Path) -> None:
    write_series(tmp_path, PatientID=None, StudyInstanceUID=None, SeriesInstanceUID=None)
    volume = read_series(tmp_path)
    assert (volume.patient, volume.study) == ("", "")


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: missing; give a DICOM folder"):
        list_series(tmp_path / "nowhere")
    (tmp_path / "a.png").write_bytes(b"no DICOM")
    refused(tmp_path, "holds no DICOM slices", "for another format its file")
    write_slice(tmp_path / "mr", STORED[0], Modality="MR")
    refused(tmp_path, "no CT series", "1.2.3: MR, no description, 1 slices")


# --- Slices that do not fit -----------------------------------------------------------------------


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "e.dcm").unlink()
    words = "the next slice, a.dcm, lies 5 mm further, others 2.5 mm"
    refused(tmp_path, words, "slices are missing", "fetch", begins=tmp_path / "b.dcm")


def test_slices_at_one_place_are_named(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "f.dcm").write_bytes((tmp_path / "e.dcm").read_bytes())
    refused(tmp_path, "lies where e.dcm lies; keep one", begins=tmp_path / "f.dcm")


def test_a_slice_aside_of_the_others_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    place = {"ImagePositionPatient": [17, 7, 7 + 4 * 2.5]}
    write_slice(tmp_path / "c.dcm", STORED[4], **place)
    refused(tmp_path, "unevenly spaced", begins=tmp_path / "a.dcm")


def test_rounded_positions_are_no_gap(tmp_path: Path) -> None:
    for k, picture in enumerate(STORED):
        place = {"ImagePositionPatient": [0, 0, round(k * 0.625, 2)]}
        write_slice(tmp_path / f"{k}.dcm", picture, **place)
    assert read_series(tmp_path).spacing[2] == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"ImageOrientationPatient": list(SAGITTAL)}, "another orientation or pixel spacing"),
        ({"PixelSpacing": [0.75, 0.75]}, "another orientation or pixel spacing"),
        ({"Rows": 8, "Columns": 3}, "is (8, 3), but e.dcm of the same series (6, 4)"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1 pixels"),
        ({"NumberOfFrames": 2}, "many frames in one file"),
        ({"SOPClassUID": EnhancedCTImageStorage}, "convert it to NIfTI"),
        ({"PixelSpacing": None}, "gives no PixelSpacing"),
        ({"PixelSpacing": "x"}, "unreadable"),
        ({"Modality": "MR"}, "is of modality MR; choose a CT series"),
    ],
)
def test_a_slice_that_does_not_fit_is_named(
    tmp_path: Path, tags: dict[str, Any], words: str
) -> None:
    write_series(tmp_path)
    if tags.get("PixelSpacing") == "x":
        file = tmp_path / "c.dcm"
        file.write_bytes(file.read_bytes().replace(b"0.75\\0.5", b"0.75\\x.5"))
    else:
        write_slice(
            tmp_path / "c.dcm", STORED[4], **{"ImagePositionPatient": [7, 7, 7 + 4 * 2.5], **tags}
        )
    refused(tmp_path, words, begins=tmp_path / "c.dcm")


def test_crooked_directions_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0])
    refused(tmp_path, "no pair of perpendicular unit vectors", begins=tmp_path / "e.dcm")


# --- Broken files ---------------------------------------------------------------------------------


def test_a_truncated_slice_is_never_left_out(tmp_path: Path) -> None:
    """Wherever it ends, except in the first bytes that tell DICOM from other files."""
    write_series(tmp_path)
    file = tmp_path / "c.dcm"  # the topmost: without it nothing would be seen to lack
    content = file.read_bytes()
    for length in range(260, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"c\.dcm"):
            read_series(tmp_path)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_truncated_compressed_pixels_are_refused(tmp_path: Path, compressor: str) -> None:
    file = write_compressed(tmp_path / "a.dcm", compressor)
    content = file.read_bytes()
    for length in (
        len(content) // 2,
        len(content) - 100,
        len(content) - 9,
    ):  # the last 8 close the pixels
        file.write_bytes(content[:length])
        refused(file, "unreadable", "fetch the file again")


@settings(derandomize=True, deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.dcm"
    write_slice(file, STORED[0], SOPInstanceUID="1.2.3.4", PixelPaddingValue=-2000)
    content = bytearray(file.read_bytes())
    where = st.integers(128, len(content) - 1)
    for at, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), max_size=4)):
        content[at] = value
    file.write_bytes(content[: data.draw(where | st.just(len(content)))])
    try:
        told = f"{read_series(file).source}: "
    except ValueError as error:
        told = str(error)
    assert told.startswith(f"{file}: ")
