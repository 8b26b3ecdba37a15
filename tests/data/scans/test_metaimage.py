"""MetaImage files are read as ITK reads them, where that is right; bad headers are refused."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pyro_stitchnet.data.scans.common import LPS_TO_RAS
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.streaming import read_stack

HU = np.random.default_rng(0).integers(-1000, 500, (4, 5, 6)).astype(np.int16)

HEADER = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "DimSize": "4 5 6",
    "ElementSpacing": "0.5 0.6 2",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


def write(path: Path, data: bytes = HU.tobytes("F"), **fields: Any) -> Path:
    """Write a file; fields are added before the last, replaced, or left out where None."""
    merged = {**HEADER, **fields}
    merged["ElementDataFile"] = merged.pop("ElementDataFile")
    lines = [f"{name} = {value}\n" for name, value in merged.items() if value is not None]
    path.write_bytes("".join(lines).encode() + data)
    return path


def refused(path: Path, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^{path}: .*{words}") as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


TYPES = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", [*TYPES, np.float32, np.float64])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_numbers_of_every_type_are_those_of_itk(
    tmp_path: Path, dtype: type, packed: bool, ending: str
) -> None:
    values: np.ndarray = np.random.default_rng(1).integers(0, 100, (4, 5, 6)).astype(dtype)
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(values.T), path, useCompression=packed)
    assert np.array_equal(read_volume(path).voxels, values)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Offset": "1 2 3"},
        {"Position": "1 2 3", "TransformMatrix": "0 1 0 0 0 1 1 0 0"},
        {"Origin": "-1 2.5 3e1", "Orientation": "0.8 0.6 0 -0.6 0.8 0 0 0 1"},
        {"ElementSpacing": None, "ElementSize": "2 3 4"},
        {"ElementSpacing": "1 2 -3"},
        {"HeaderSize": "0", "Comment": "anything = at all", "0010|0010": "x"},
        {"BinaryData": "true", "ElementByteOrderMSB": "False", "BinaryDataByteOrderMSB": None},
    ],
)
def test_geometry_is_that_of_itk(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = write(tmp_path / "a.mha", **fields)
    volume, image = read_volume(path), sitk.ReadImage(path)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(volume.affine, LPS_TO_RAS @ affine, atol=1e-9)
    assert np.array_equal(volume.voxels, sitk.GetArrayFromImage(image).T)
    assert volume.spaced
    assert volume.warnings == ()


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("um", 0.001), ("cm", 10), ("?", 1)])
def test_units_of_length_are_heeded(tmp_path: Path, unit: str, mm: float) -> None:
    spacing = " ".join(f"{size / mm:g}" for size in (2, 3, 4))
    path = write(tmp_path / "a.mha", DistanceUnits=unit, ElementSpacing=spacing, Offset=spacing)
    volume = read_volume(path)
    np.testing.assert_allclose(np.diag(volume.affine), [-2, -3, 4, 1])
    np.testing.assert_allclose(volume.affine[:3, 3], [-2, -3, 4])


def test_without_spacing_it_is_unknown(tmp_path: Path) -> None:
    stack = read_stack(write(tmp_path / "a.mha", ElementSpacing=None))
    assert not stack.spaced
    assert stack.spacing == (1, 1, 1)


def test_an_orientation_in_letters_that_differs_is_warned_of(tmp_path: Path) -> None:
    path, turned = tmp_path / "a.mha", "-1 0 0 0 1 0 0 0 1"
    for matrix, letters, differ in (
        (None, "LPI", True),
        (None, "RAI", False),
        (turned, "RAI", True),
        (turned, "LAI", False),
        (turned, "RPS", False),
        (turned, "???", False),
    ):
        write(path, TransformMatrix=matrix, AnatomicalOrientation=letters)
        warnings = read_stack(path).warnings
        assert len(warnings) == differ
        assert all("AnatomicalOrientation and the TransformMatrix" in text for text in warnings)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_itk_writes_is_read_without_a_warning(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "turned.mha"
    image = sitk.GetImageFromArray(HU.T)
    image.SetDirection(Rotation.random(rng=seed).as_matrix().ravel().tolist())
    sitk.WriteImage(image, path)
    assert read_volume(path).warnings == ()


def test_voxels_beside_the_header(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a b.raw", "sub/a.raw", "sub\\a.raw"):
        (tmp_path / name.replace("\\", "/")).write_bytes(HU.tobytes("F"))
        path = write(tmp_path / "a.mhd", b"", ElementDataFile=name)
        assert np.array_equal(read_volume(path).voxels, HU)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "a.mhd").symlink_to(path)  # a linked header, and linked voxels
    assert np.array_equal(read_volume(other / "a.mhd").voxels, HU)
    (other / "b.raw").symlink_to(tmp_path / "a b.raw")
    path = write(other / "b.mhd", b"", ElementDataFile="b.raw")
    assert np.array_equal(read_volume(path).voxels, HU)


@pytest.mark.parametrize("size", ["7", "-1"])
def test_voxels_behind_other_bytes(tmp_path: Path, size: str) -> None:
    (tmp_path / "a.raw").write_bytes(b"another" + HU.tobytes("F"))
    path = write(tmp_path / "a.mhd", b"", ElementDataFile="a.raw", HeaderSize=size)
    assert np.array_equal(read_volume(path).voxels, HU)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a.raw", "sub/../../a.raw", "..\\a.raw", "C:\\a.raw", "\\\\host\\a", ""],
)
def test_a_header_names_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.raw").write_bytes(HU.tobytes("F"))
    path = write(tmp_path / "in" / "a.mhd", b"", ElementDataFile=name)
    refused(path, "may only name files in or below its folder")


@pytest.mark.parametrize("name", ["LIST", "LIST 2", "a%03d.raw 1 6 1"])
def test_several_files_of_voxels_are_refused(tmp_path: Path, name: str) -> None:
    refused(write(tmp_path / "a.mhd", b"", ElementDataFile=name), "several files; save it as one")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"NDims": "100"}, "claims 100 axes"),  # ends the process in ITK
        ({"NDims": "-1"}, "claims -1 axes"),
        ({"NDims": "2"}, "no 2 numbers as DimSize"),
        ({"NDims": None}, "NDims"),
        ({"DimSize": "4 5 nan"}, "DimSize"),
        ({"DimSize": "4 5 6.5"}, "DimSize"),
        ({"DimSize": "4 5 -6"}, "longer than 0"),
        ({"DimSize": "4 5 5"}, "claims 200 bytes"),
        ({"ElementSpacing": "1 1 0"}, "singular"),
        ({"ElementSpacing": "1 1 nan"}, "ElementSpacing"),
        ({"ElementSpacing": "1 1 1e-3"}, "correct its spacing"),
        ({"ElementSpacng": "1 1 1"}, "perhaps meant to be ElementSpacing"),
        ({"TransformMatrix": "2 0 0 0 1 0 0 0 1"}, "unit vectors"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "singular"),
        ({"DistanceUnits": "furlong"}, "unit of length"),
        ({"Offset": "1e300 0 0"}, "from the origin"),
        ({"Offset": "1 2 3", "Origin": "1 2 3"}, "two fields Offset"),
        ({"ElementType": "MET_COMPLEX"}, "no type of numbers"),
        ({"ElementNumberOfChannels": "3"}, "several channels"),
        ({"ElementToIntensityFunctionSlope": "2"}, "save it with scaled values"),
        ({"BinaryData": "False"}, "as text"),
        ({"BinaryData": "maybe"}, "neither True nor False"),
        ({"ObjectType": "Mesh"}, "holds a Mesh, not an image"),
        ({"ElementDataFile": "missing.raw"}, "which is missing"),
    ],
)
def test_bad_headers_are_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    refused(write(tmp_path / "a.mha", **fields), words)


def test_fields_of_others_are_passed_over(tmp_path: Path) -> None:
    others: dict[str, Any] = {"ImageOrientation": "1 0 0", "Modality": "MET_MOD_CT"}
    assert np.array_equal(read_volume(write(tmp_path / "a.mha", **others)).voxels, HU)


def test_the_size_of_packed_voxels_is_checked(tmp_path: Path) -> None:
    packed = zlib.compress(HU.tobytes("F"))
    path = tmp_path / "a.mha"
    for size in (None, str(len(packed))):
        write(path, packed, CompressedData="True", CompressedDataSize=size)
        assert np.array_equal(read_volume(path).voxels, HU)
    write(path, packed, CompressedData="True", CompressedDataSize="12")
    refused(path, "claims 12 bytes of packed voxels")
    write(path, packed, CompressedData="True", DimSize="4 5 5")
    refused(path, "more voxels than its header claims")
    write(path, packed, CompressedData="True", DimSize="4 5 7")
    refused(path, "ends before its last voxel")
