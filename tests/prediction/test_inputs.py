"""Which scans there are, and what they are called."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.prediction.inputs import find_inputs, named


@pytest.fixture
def mixed(
    write_series: Callable[..., Path], write_volume: Callable[..., Path], tmp_path: Path
) -> Path:
    """Two folders deep: volumes, a picture, DICOM series, and what is none of these."""
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
    found, bad = find_inputs([mixed, mixed / "v.nii.gz", mixed / "a"])
    assert not bad
    places = sorted(f"{one.path.relative_to(mixed.resolve())} {one.series}" for one in found)
    assert places == [
        "a/ct 1.2.3", "a/v.nrrd None", "b/ct 1.2.4", "b/slice.PNG None", "two 1.2.5", "two 1.2.6",
        "v.nii.gz None",
    ]  # fmt: skip
    assert len({one.key for one in found}) == len(found)


def test_names_are_one_of_a_kind_and_stay(mixed: Path) -> None:
    found, _ = find_inputs([mixed])
    names = named(found, {}, keep=False)
    assert len(names) == len(found)
    assert {"slice", "two_4_lung", "two_5"} <= names.keys()
    assert sum(name.startswith("ct-") for name in names) == 2
    taken = {name: one.key for name, one in names.items()}
    alone, _ = find_inputs([mixed / "a"])
    again = named(alone, taken, keep=False)
    assert {name: one.key for name, one in again.items()}.items() <= taken.items()
    other = named(alone, {"v": "another scan", "ct": ""}, keep=False)
    assert not {"v", "ct"} & other.keys()


def test_what_is_no_scan_is_told(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    given = [mixed / "readme.txt", tmp_path / "empty", tmp_path / "missing"]
    found, bad = find_inputs(given)
    assert not found
    assert [path for path, _ in bad] == [str(path) for path in given]
    assert [reason.split(";")[0] for _, reason in bad] == [
        "no scan by its ending",
        "holds no volume, picture or CT series",
        "no such file or folder",
    ]


def test_one_file_of_a_series_is_refused(mixed: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.dcm: one file of a DICOM series; give the folder"):
        find_inputs([mixed / "a" / "ct" / "a.dcm"])
    with pytest.raises(ValueError, match="name at least one"):
        find_inputs([])
