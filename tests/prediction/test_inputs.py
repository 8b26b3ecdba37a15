"""Scans in files and folders, and the names of their results."""

import os
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
    inputs = find_inputs([mixed, mixed / "v.nii.gz", mixed / "a"])
    assert not any(one.fault for one in inputs)
    places = sorted(f"{one.path.relative_to(mixed)} {one.series}" for one in inputs)
    assert places == [
        "a/ct 1.2.3", "a/v.nrrd None", "b/ct 1.2.4", "b/slice.PNG None", "two 1.2.5", "two 1.2.6",
        "v.nii.gz None",
    ]  # fmt: skip
    assert len({one.identity for one in inputs}) == len(inputs)


def test_scans_are_numbered_and_keep_their_numbers(mixed: Path) -> None:
    inputs = find_inputs([mixed])
    names = assign_names(inputs, {}, (), keep_identifiers=False)
    assert list(names) == [f"scan-{n:04}" for n in range(1, 8)]
    known = {names[name].identity: name for name in ("scan-0002", "scan-0005")}
    again = assign_names(inputs, known, {"Scan-0007"}, keep_identifiers=False)
    assert known.items() <= {one.identity: name for name, one in again.items()}.items()
    new = again.keys() - known.values()
    assert new == {"scan-0006", "scan-0008", "scan-0009", "scan-0010", "scan-0011"}


def test_titles_become_unique_file_names_where_identifiers_are_kept(
    mixed: Path, write_volume: Callable[..., Path]
) -> None:
    for name in ("scans.csv", "V", "Mu\u0308ller", "x" * 240, "..."):
        write_volume(mixed / f"{name}.nii.gz", np.zeros((3, 4, 5), np.int16), np.eye(4))
    inputs = find_inputs([mixed])
    names = assign_names(inputs, {}, {"scans.csv"}, keep_identifiers=True)
    assert len({name.casefold() for name in names}) == len(inputs)
    assert {"ct", "ct-2", "slice", "two_4_lung", "two_5", "scans.csv-2", "M\u00fcller"} < set(names)
    assert all(0 < len(name) <= 102 for name in names)


def test_paths_without_scans_have_a_fault(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(mixed / "pipe.nii")
    paths = [mixed / "readme.txt", tmp_path / "empty", tmp_path / "missing",
             mixed / "a" / "ct" / "a.dcm", mixed / "pipe.nii", tmp_path / ("x" * 300)]  # fmt: skip
    inputs = find_inputs(paths)
    assert [one.path for one in inputs] == paths
    assert [one.fault.split(";")[0] for one in inputs] == [
        "not a scan by its ending",
        "contains no volume, image or CT series",
        "no such file or folder",
        "one file of a DICOM series",
        "not a file",
        "cannot be read (File name too long)",
    ]
    with pytest.raises(ValueError, match="name at least one"):
        find_inputs([])


def test_links_are_followed_whatever_their_targets_are_called(
    tmp_path: Path, write_volume: Callable[..., Path]
) -> None:
    scan = np.zeros((3, 4, 5), np.int16)
    (tmp_path / "store" / "b").mkdir(parents=True)
    (tmp_path / "cohort" / "a").mkdir(parents=True)
    write_volume(tmp_path / "cohort" / "a" / "ct.nii.gz", scan, np.eye(4))
    write_volume(tmp_path / "store" / "b" / "ct.nii.gz", scan, np.eye(4))
    write_volume(tmp_path / "blob.nii.gz", scan, np.eye(4)).rename(tmp_path / "blob")
    links = {"b": "store/b", "c.nii.gz": "blob", "again": "cohort", "d": "gone", "e.nii": "gone"}
    for name, target in links.items():
        (tmp_path / "cohort" / name).symlink_to(tmp_path / target)
    inputs = find_inputs([tmp_path / "cohort", tmp_path / "store"])
    found = {str(one.path.relative_to(tmp_path / "cohort")): one.fault for one in inputs}
    assert found == {
        "a/ct.nii.gz": "",
        "b/ct.nii.gz": "",
        "c.nii.gz": "",
        "d": "a link to a missing file or folder; fetch it",
        "e.nii": "a link to a missing file; fetch the file",
    }
    assert find_inputs([tmp_path / "cohort" / "c.nii.gz"])[0].fault == ""


def test_a_bad_folder_costs_only_itself(mixed: Path) -> None:
    (mixed / "b" / "ct" / "x.dcm").write_text("no DICOM")
    inputs = {str(one.path.relative_to(mixed)): one.fault for one in find_inputs([mixed])}
    assert inputs.pop("b/ct")
    assert len(inputs) == 5
    assert not any(inputs.values())


def test_results_are_no_scans(mixed: Path) -> None:
    for name in ("report.json", "labels.nii.gz", "scan.nii.gz"):
        (mixed / "out" / "scan-0001").mkdir(parents=True, exist_ok=True)
        (mixed / "out" / "scan-0001" / name).write_bytes(b"")
    assert len(find_inputs([mixed])) == 7
    for place in ("out/scan-0001", "out"):
        (one,) = find_inputs([mixed / place])
        assert one.fault.startswith(
            "holds results" if place.endswith("1") else "contains no volume"
        )
    (mixed / "out" / "predict.json").write_text("{}")
    (one,) = find_inputs([mixed / "out"])
    assert one.fault == "holds results of `stitchnet predict`; give the scans"


def test_a_series_in_several_folders_is_one_scan(
    tmp_path: Path, write_series: Callable[..., Path]
) -> None:
    stored = np.zeros((1, 4, 4), np.uint16)
    halves = [tmp_path / "ct" / name for name in "ab"]
    for k, half in enumerate(halves):
        write_series(half, stored, names=str(k), ImagePositionPatient=[0, 0, k])
    for paths in ([tmp_path], [tmp_path / "ct"], halves, [tmp_path, *halves]):
        (one,) = find_inputs(paths)
        assert (one.path, one.title, one.series) == (tmp_path / "ct", "ct", "1.2.3")
        assert (one.image, one.fault) == (tuple(halves), "")
    (one,) = find_inputs(halves[:1])
    assert one.image == halves[0]


def test_the_state_of_a_scan_changes_with_its_detached_voxels(
    write_volume: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.mhd"
    write_volume(path, np.zeros((3, 4, 5), np.int16), np.eye(4))
    voxels = (tmp_path / "a.raw").rename(tmp_path / "of any name")
    path.write_text(path.read_text().replace("a.raw", voxels.name))
    (scan,) = find_inputs([path])
    before = scan.state
    os.utime(voxels, (0, 0))
    assert scan.state != before
