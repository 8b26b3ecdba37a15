"""Scans in files and folders, and the names of their results."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.prediction.inputs import assign_names, find_inputs


@pytest.fixture
def mixed(
    write_series: Callable[..., Path], write_volume: Callable[..., Path], tmp_path: Path
) -> Path:
    """Nested folders with volumes, an image file, DICOM series, and files of other kinds."""
    root = tmp_path / "mixed"
    stored = np.zeros((5, 4, 4), np.uint16)
    write_series(root / "a" / "ct", stored)
    write_series(root / "b" / "ct", stored, SeriesInstanceUID="1.2.4")
    two = root / "two"
    write_series(two, stored, SeriesInstanceUID="1.2.5", SeriesNumber=4, SeriesDescription="lung")
    write_series(two, stored, names="fghij", SeriesInstanceUID="1.2.6", SeriesNumber=5)
    write_series(two, stored, names="klmno", SeriesInstanceUID="1.2.7", Modality="MR")
    write_volume(root / "v.nii.gz", np.zeros((3, 4, 5), np.int16), np.eye(4))
    write_volume(root / "a" / "v.nrrd", np.zeros((3, 4, 5), np.int16), np.eye(4))
    Image.new("L", (8, 8)).save(root / "b" / "slice.PNG")
    (root / "readme.txt").write_text("no scan")
    (root / ".hidden.nii").write_text("no scan")
    return root


def test_every_scan_of_nested_folders_is_found_once(mixed: Path) -> None:
    inputs, bad = find_inputs([mixed, mixed / "v.nii.gz", mixed / "a"])
    assert not bad
    places = sorted(f"{one.path.relative_to(mixed.resolve())} {one.series}" for one in inputs)
    assert places == [
        "a/ct 1.2.3", "a/v.nrrd None", "b/ct 1.2.4", "b/slice.PNG None", "two 1.2.5", "two 1.2.6",
        "v.nii.gz None",
    ]  # fmt: skip
    assert len({one.key for one in inputs}) == len(inputs)


def test_names_are_unique_and_stable(mixed: Path) -> None:
    inputs, _ = find_inputs([mixed])
    names = assign_names(inputs, {}, keep_identifiers=False)
    assert len(names) == len(inputs)
    assert {"slice", "two_4_lung", "two_5"} <= names.keys()
    assert sum(name.startswith("ct-") for name in names) == 2
    taken = {name: one.key for name, one in names.items()}
    alone, _ = find_inputs([mixed / "a"])
    again = assign_names(alone, taken, keep_identifiers=False)
    assert {name: one.key for name, one in again.items()}.items() <= taken.items()
    other = assign_names(alone, {"v": "another scan", "ct": ""}, keep_identifiers=False)
    assert not {"v", "ct"} & other.keys()


def test_paths_without_scans_are_reported(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    paths = [mixed / "readme.txt", tmp_path / "empty", tmp_path / "missing"]
    inputs, bad = find_inputs(paths)
    assert not inputs
    assert [path for path, _ in bad] == [str(path) for path in paths]
    assert [reason.split(";")[0] for _, reason in bad] == [
        "not a scan by its ending",
        "contains no volume, image or CT series",
        "no such file or folder",
    ]


def test_one_file_of_a_series_is_refused(mixed: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.dcm: one file of a DICOM series; give the folder"):
        find_inputs([mixed / "a" / "ct" / "a.dcm"])
    with pytest.raises(ValueError, match="name at least one"):
        find_inputs([])
