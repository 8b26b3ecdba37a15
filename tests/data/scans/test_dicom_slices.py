"""The places of a series' voxels in the patient, and slices that do not fit together."""

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine, voxel_sizes
from pydicom.uid import EnhancedCTImageStorage
from scipy.spatial.transform import Rotation

from pyro_stitchnet.data.scans.common import LPS_TO_RAS
from pyro_stitchnet.data.scans.dicom import open_series
from pyro_stitchnet.data.scans.volume import Volume

Write = Callable[..., Path]

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
SHAPE = (5, 6, 4)  # slices, rows, columns; different, so that exchanged axes are detected

# Stored values are unique, so that a value identifies its voxel.
STORED = np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


def read(path: Path, uid: str | None = None) -> Volume:
    return open_series(path, uid).volume()


def spacing(volume: Volume) -> tuple[float, ...]:
    return tuple(voxel_sizes(volume.affine).tolist())


def refused(path: Path, *words: str, begins: Path | None = None, uid: str | None = None) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"{begins or path}: ")) as caught:
        read(path, uid)
    for word in words:
        assert word in str(caught.value)


def assert_places_follow_the_headers(folder: Path) -> None:
    """Equation C.7.6.2.1-1 of the DICOM standard, pixel by pixel."""
    volume = read(folder)
    places = {
        value: apply_affine(volume.affine, index)
        for index, value in np.ndenumerate(volume.voxels + 1024)
    }
    assert len(places) == STORED.size
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        position = np.array(header.ImagePositionPatient)
        along_row, down_column = np.array(header.ImageOrientationPatient).reshape(2, 3)
        between_rows, between_columns = header.PixelSpacing
        for (row, column), value in np.ndenumerate(header.pixel_array):
            lps = position + along_row * between_columns * column
            lps = lps + down_column * between_rows * row
            np.testing.assert_allclose(places[value], lps * [-1, -1, 1], atol=1e-4)


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
def test_places_of_voxels_follow_the_headers(
    tmp_path: Path, orientation: Sequence[float], step: Sequence[float], write_series: Write
) -> None:
    write_series(tmp_path, STORED, step=step, ImageOrientationPatient=list(orientation))
    assert_places_follow_the_headers(tmp_path)


@settings(derandomize=True, deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), sign=st.sampled_from([-1, 1]))
def test_places_of_voxels_follow_the_headers_of_an_oblique_series(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sign: int, write_series: Write
) -> None:
    turn = Rotation.random(rng=seed).as_matrix().round(9)
    folder = tmp_path_factory.mktemp("oblique")
    orientation = [*turn[:, 0], *turn[:, 1]]
    write_series(folder, STORED, step=sign * 2.5 * turn[:, 2], ImageOrientationPatient=orientation)
    assert_places_follow_the_headers(folder)


def test_axes_are_columns_rows_and_slices_along_the_normal(
    tmp_path: Path, write_series: Write
) -> None:
    up = read(write_series(tmp_path / "up", STORED))
    down = read(write_series(tmp_path / "down", STORED, step=(0, 0, -2.5)))
    assert up.voxels.shape == (4, 6, 5)
    assert up.voxels.dtype == np.float32
    assert spacing(up) == (0.5, 0.75, 2.5)
    assert np.array_equal(up.voxels, STORED.T - 1024)
    assert np.array_equal(down.voxels, STORED[::-1].T - 1024)
    assert up.affine[2, 2] == down.affine[2, 2] == 2.5


def test_simpleitk_reads_the_same(tmp_path: Path, write_series: Write) -> None:
    turn = Rotation.from_euler("xyz", [20, -30, 10], degrees=True).as_matrix().round(9)
    orientation = [*turn[:, 0], *turn[:, 1]]
    write_series(tmp_path, STORED, step=2.5 * turn[:, 2], ImageOrientationPatient=orientation)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image, volume = reader.Execute(), read(tmp_path)
    assert np.array_equal(sitk.GetArrayFromImage(image).T, volume.voxels)
    origin, index = image.GetOrigin(), (1, 2, 3)
    for where, point in (((0, 0, 0), origin), (index, image.TransformIndexToPhysicalPoint(index))):
        ras = apply_affine(LPS_TO_RAS, point)
        np.testing.assert_allclose(apply_affine(volume.affine, where), ras, atol=1e-4)


def test_one_file_is_one_slice_of_its_thickness(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, STORED)
    volume = read(tmp_path / "b.dcm")
    assert np.array_equal(volume.voxels[..., 0], STORED[1].T - 1024)
    assert spacing(volume) == (0.5, 0.75, 2.5)
    assert volume.source == tmp_path / "b.dcm"


def test_without_positions_slices_follow_their_numbers(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, STORED, ImagePositionPatient=None, ImageOrientationPatient=None)
    volume = read(tmp_path)
    assert np.array_equal(volume.voxels, STORED.T - 1024)
    assert spacing(volume) == (0.5, 0.75, 2.5)
    assert np.array_equal(volume.axial(), STORED - 1024)


def test_without_positions_slices_may_overlap(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, STORED, ImagePositionPatient=None, SpacingBetweenSlices=-2)
    assert spacing(read(tmp_path)) == (0.5, 0.75, 2)


@pytest.mark.parametrize("tag", ["InstanceNumber", "SliceThickness"])
def test_slices_without_position_or_number_are_refused(
    tmp_path: Path, tag: str, write_series: Write
) -> None:
    tags: dict[str, Any] = {"ImagePositionPatient": None, tag: None}
    write_series(tmp_path, STORED, **tags)
    refused(
        tmp_path,
        "its place among the slices is unknown",
        "InstanceNumber and SliceThickness",
        begins=tmp_path / ("a.dcm" if tag == "InstanceNumber" else "d.dcm"),
    )


def test_some_slices_without_a_position_are_refused(
    tmp_path: Path, write_slice: Write, write_series: Write
) -> None:
    write_series(tmp_path, STORED)
    write_slice(tmp_path / "z.dcm", STORED[0], ImagePositionPatient=None, InstanceNumber=9)
    with pytest.raises(ValueError, match="all slices need ImagePositionPatient"):
        read(tmp_path)


# --- Slices that do not fit -----------------------------------------------------------------------


def test_a_missing_slice_is_named(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, STORED)
    (tmp_path / "e.dcm").unlink()
    words = "the next slice, a.dcm, lies 5 mm further, others 2.5 mm"
    refused(tmp_path, words, "slices are missing", "fetch", begins=tmp_path / "b.dcm")


def test_slices_at_the_same_place_are_named(
    tmp_path: Path, write_slice: Write, write_series: Write
) -> None:
    write_series(tmp_path, STORED)
    place = {"ImagePositionPatient": [7, 7, 7 + 2 * 2.5], "InstanceNumber": 9}
    write_slice(tmp_path / "f.dcm", STORED[0], **place)
    refused(tmp_path, "has the position of e.dcm; keep one", begins=tmp_path / "f.dcm")


def test_a_slice_shifted_sideways_is_refused(
    tmp_path: Path, write_slice: Write, write_series: Write
) -> None:
    write_series(tmp_path, STORED)
    place = {"ImagePositionPatient": [17, 7, 7 + 4 * 2.5]}
    write_slice(tmp_path / "c.dcm", STORED[4], **place)
    refused(tmp_path, "unevenly spaced", begins=tmp_path / "a.dcm")


def test_rounded_positions_are_accepted(tmp_path: Path, write_slice: Write) -> None:
    for k, stored in enumerate(STORED):
        place = {"ImagePositionPatient": [0, 0, round(k * 0.625, 2)]}
        write_slice(tmp_path / f"{k}.dcm", stored, **place)
    assert spacing(read(tmp_path))[2] == pytest.approx(0.625)


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
        ({"RescaleType": "Z_EFF"}, "RescaleType Z_EFF, not Hounsfield units; choose the series"),
        ({"RescaleSlope": 0}, "has a RescaleSlope of 0.0 and RescaleIntercept of -1024.0"),
        ({"RescaleSlope": "nan"}, "has a RescaleSlope of nan"),
        ({"RescaleIntercept": "1e999"}, "RescaleIntercept of inf"),
        ({"ImagePositionPatient": [7, 7, "nan"]}, "ImagePositionPatient that is infinite or not"),
        ({"SliceThickness": "inf"}, "SliceThickness or SpacingBetweenSlices that is infinite"),
        ({"Rows": 8193}, "has 8193 Rows and 4 Columns, not 1 to 8192"),
        ({"Columns": 0}, "has 6 Rows and 0 Columns, not 1 to 8192"),
        ({"BitsStored": 12, "HighBit": 11}, "another BitsStored or PixelRepresentation than e.dcm"),
        ({"PixelRepresentation": 0}, "another BitsStored or PixelRepresentation than e.dcm"),
        ({"BitsStored": 12}, "its BitsAllocated, BitsStored and HighBit contradict each other"),
        ({"BitsAllocated": 8}, "its BitsAllocated, BitsStored and HighBit contradict each other"),
    ],
)
def test_a_slice_that_does_not_fit_is_named(
    tmp_path: Path, tags: dict[str, Any], words: str, write_slice: Write, write_series: Write
) -> None:
    write_series(tmp_path, STORED)
    if tags.get("PixelSpacing") == "x":
        file = tmp_path / "c.dcm"
        file.write_bytes(file.read_bytes().replace(b"0.75\\0.5", b"0.75\\x.5"))
    else:
        place = {"ImagePositionPatient": [7, 7, 7 + 4 * 2.5]}
        with warnings.catch_warnings(action="ignore"):  # of pydicom, about what is no number
            write_slice(tmp_path / "c.dcm", STORED[4], **{**place, **tags})
    refused(tmp_path, words, begins=tmp_path / "c.dcm")


@pytest.mark.parametrize("between", [0.005, 150.0])
def test_slices_at_distances_that_no_ct_has_are_refused(
    tmp_path: Path, between: float, write_series: Write
) -> None:
    write_series(tmp_path, STORED, step=(0, 0, between))
    refused(tmp_path, "0.01 to 100 mm apart", "correct its spacing")


def test_the_thickness_of_one_slice_may_be_unknown(tmp_path: Path, write_slice: Write) -> None:
    write_slice(tmp_path / "a.dcm", STORED[0], SliceThickness=None)
    volume = read(tmp_path)
    assert spacing(volume) == (0.5, 0.75, 1)
    assert not volume.spaced
    write_slice(tmp_path / "a.dcm", STORED[0])
    assert read(tmp_path).spaced


def test_directions_that_are_not_perpendicular_are_refused(
    tmp_path: Path, write_series: Write
) -> None:
    write_series(tmp_path, STORED, ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0])
    refused(tmp_path, "not a pair of perpendicular unit vectors", begins=tmp_path / "e.dcm")


@pytest.mark.parametrize("spacing", [[0, 0.5], [0.75, -0.5], [0.001, 0.001], [0.5, 1e9]])
def test_a_pixel_spacing_that_no_ct_has_is_refused(
    tmp_path: Path, spacing: list[float], write_series: Write
) -> None:
    write_series(tmp_path, STORED, PixelSpacing=spacing)
    refused(tmp_path, "not 0.01 to 100 mm; correct its tags", begins=tmp_path / "a.dcm")
