"""NRRD files are read as ITK reads them, where that is right; bad headers are refused."""

import bz2
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from pyro_stitchnet.data.scans.common import LPS_TO_RAS
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.streaming import read_stack

HU = np.random.default_rng(0).integers(-1000, 500, (4, 5, 6)).astype(np.int16)

HEADER = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "4 5 6",
    "space directions": "(0.5,0,0) (0,0.6,0) (0,0,2)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(1,2,3)",
}

NO_SPACE: dict[str, Any] = {"space": None, "space directions": None, "space origin": None}


def write(path: Path, data: bytes = HU.tobytes("F"), **fields: Any) -> Path:
    """Write a file; fields (with _ for blanks) are added, replaced, or left out where None."""
    merged = {**HEADER, **{name.replace("_", " "): value for name, value in fields.items()}}
    lines = [f"{name}: {value}\n" for name, value in merged.items() if value is not None]
    path.write_bytes(b"NRRD0004\n# a comment\n" + "".join(lines).encode() + b"\n" + data)
    return path


def refused(path: Path, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^{path}: .*{words}") as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"space": "right-anterior-superior"},
        {"space": "RAS"},
        {"space": "LAS"},
        {"space_directions": "(0,0.5,0) (0,0,2) (-0.6,0,0)"},
        {"space_directions": "(0.4,0.3,0)(-0.3,0.4,0)  (0, 0, 2)"},
        {"thicknesses": "nan nan 5", "content": "x", "labels": '"a" "b" "c"'},
        {"measurement_frame": "(1,0,0) (0,1,0) (0,0,1)", "centers": "cell cell cell"},
    ],
)
def test_geometry_is_that_of_itk(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = write(tmp_path / "a.nrrd", **fields)
    volume, image = read_volume(path), sitk.ReadImage(path)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(volume.affine, LPS_TO_RAS @ affine, atol=1e-9)
    assert np.array_equal(volume.voxels, sitk.GetArrayFromImage(image).T)
    assert volume.spaced
    assert volume.warnings == ()


@pytest.mark.parametrize(("unit", "mm"), [("mm", 1), ("um", 0.001), ("cm", 10), ("m", 1000)])
def test_units_of_length_are_heeded(tmp_path: Path, unit: str, mm: float) -> None:
    spacing = [f"{size / mm:.9g}" for size in (2, 3, 4)]
    units = f'"{unit}" "{unit}" "{unit}"'
    a, b, c = spacing
    path = write(
        tmp_path / "a.nrrd",
        space_directions=f"({a},0,0) (0,{b},0) (0,0,{c})",
        space_origin=f"({a},{b},{c})",
        space_units=units,
    )
    volume = read_volume(path)
    np.testing.assert_allclose(np.diag(volume.affine), [-2, -3, 4, 1])
    np.testing.assert_allclose(volume.affine[:3, 3], [-2, -3, 4])
    write(path, spacings=" ".join(spacing), units=units, **NO_SPACE)
    assert read_stack(path).spacing == pytest.approx((4, 3, 2))


@pytest.mark.parametrize("spacings", [None, "2 3 4"])
def test_without_a_space_the_orientation_is_unknown(tmp_path: Path, spacings: str | None) -> None:
    stack = read_stack(write(tmp_path / "a.nrrd", spacings=spacings, **NO_SPACE))
    assert stack.spaced == bool(spacings)
    assert stack.spacing == ((4, 3, 2) if spacings else (1, 1, 1))
    (warning,) = stack.warnings
    assert "left and right are guesses" in warning


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-left-handed", "right-up", "LPST"])
def test_spaces_outside_the_patient_are_refused(tmp_path: Path, space: str) -> None:
    refused(write(tmp_path / "a.nrrd", space=space), "save it in LPS or RAS")


@pytest.mark.parametrize("first", [True, False])
def test_axes_of_length_1_that_are_none_of_space_are_dropped(tmp_path: Path, first: bool) -> None:
    vectors, sizes, kinds = HEADER["space directions"], HEADER["sizes"], HEADER["kinds"]
    fields: dict[str, Any] = {
        "dimension": "4",
        "sizes": f"1 {sizes}" if first else f"{sizes} 1",
        "space_directions": f"none {vectors}" if first else f"{vectors} none",
        "kinds": f"vector {kinds}" if first else f"{kinds} list",
    }
    expected = read_volume(write(tmp_path / "a.nrrd"))
    volume = read_volume(write(tmp_path / "b.nrrd", **fields))
    assert np.array_equal(volume.voxels, HU)
    assert np.array_equal(volume.affine, expected.affine)
    spacings = "nan 0.5 0.6 2" if first else "0.5 0.6 2 nan"
    write(tmp_path / "c.nrrd", **{**fields, **NO_SPACE}, spacings=spacings)
    assert read_stack(tmp_path / "c.nrrd").spacing == (2, 0.6, 0.5)
    refused(write(tmp_path / "c.nrrd", sizes="4 5 6", kinds="RGB-color domain domain"), "channels")


@pytest.mark.parametrize("encoding", ["raw", "gzip", "gz", "bzip2", "bz2"])
@pytest.mark.parametrize("alone", [True, False])
def test_voxels_packed_or_not_beside_the_header_or_in_it(
    tmp_path: Path, encoding: str, alone: bool
) -> None:
    data = HU.tobytes("F")
    if encoding != "raw":
        data = gzip.compress(data) if encoding[0] == "g" else bz2.compress(data)
    (tmp_path / "a.bin").write_bytes(data)
    path = write(
        tmp_path / ("a.nhdr" if alone else "a.nrrd"),
        b"" if alone else data,
        encoding=encoding,
        data_file="a.bin" if alone else None,
    )
    assert np.array_equal(read_volume(path).voxels, HU)
    if alone:  # the empty line at the end may be missing
        path.write_bytes(path.read_bytes()[:-1])
        assert np.array_equal(read_volume(path).voxels, HU)


@pytest.mark.parametrize("skip", ["7", "-1"])
def test_voxels_behind_other_bytes(tmp_path: Path, skip: str) -> None:
    path = write(tmp_path / "a.nrrd", b"another" + HU.tobytes("F"), byte_skip=skip)
    assert np.array_equal(read_volume(path).voxels, HU)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.raw", "sub/../../a.raw", "..\\a.raw"])
def test_a_header_names_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.raw").write_bytes(HU.tobytes("F"))
    path = write(tmp_path / "in" / "a.nhdr", b"", data_file=name)
    refused(path, "may only name files in or below its folder")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dimension": "100"}, "claims 100 axes"),
        ({"dimension": "2"}, "no 2 numbers as sizes"),
        ({"sizes": "4 5 -6"}, "longer than 0"),
        ({"sizes": "4 5 5"}, "claims 200 bytes"),
        ({"type": "block"}, "no type of numbers"),
        ({"type": None}, "no type of numbers"),
        ({"endian": None}, "order of bytes"),
        ({"encoding": "hex"}, "save it raw or packed by gzip"),
        ({"line_skip": "3"}, "line skip"),
        ({"byte_skip": "-2"}, "byte skip"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "no 3 space directions"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,nan)"}, "vector of 3 numbers"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,0)"}, "singular"),
        ({"space_directions": "(1,0,0) (0,1,0) (0,0,1e-3)"}, "correct its spacing"),
        ({"space_units": '"mm" "mm" "s"'}, "units of length"),
        ({"space_origin": "(1,2)"}, "vector of 3 numbers"),
        ({"space_origin": "(1e300,2,3)"}, "from the origin"),
        ({"space_dimension": "3"}, "both a space and a space dimension"),
        ({"spacing": "1 1 1"}, "is not a NRRD field"),
        ({"kinds": "domain"}, "no 3 kinds"),
        ({"data_file": "LIST"}, "several files"),
        ({"data_file": "a%02d.raw 1 6 1"}, "several files"),
        ({"datafile": "missing.raw"}, "which is missing"),
    ],
)
def test_bad_headers_are_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    refused(write(tmp_path / "a.nrrd", **fields), words)
