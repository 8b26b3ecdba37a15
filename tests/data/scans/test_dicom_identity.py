"""Which files are one scan: acquisitions, copies, patients, and series in several folders."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_stitchnet.data.datasets.prepare import find_jobs
from pyro_stitchnet.data.scans.dicom import are_parts, find_series, open_series
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.streaming import read_stack

Write = Callable[..., Path]

STORED = np.random.default_rng(0).integers(0, 2000, (12, 6, 4)).astype(np.int16)
N = len(STORED)


def write(folder: Path, write_slice: Write, heights: list[float], **tags: list[Any]) -> Path:
    """One slice for each height, with its value of each tag."""
    for k, height in enumerate(heights):
        place = {"ImagePositionPatient": [0, 0, height], "InstanceNumber": k + 1}
        its = {name: values[k] for name, values in tags.items()}
        write_slice(folder / f"{k:02}.dcm", STORED[k], **{**place, **its})
    return folder


# --- Acquisitions ---------------------------------------------------------------------------------

BETWEEN = [8.0 * k for k in range(6)] + [8.0 * k + 4 for k in range(6)]
SAME = [8.0 * (k % 6) for k in range(12)]
TWO = ["1"] * 6 + ["2"] * 6


@pytest.mark.parametrize("heights", [BETWEEN, SAME, [h + 0.01 * (h in SAME) for h in BETWEEN]])
@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("AcquisitionNumber", [1, 2]),
        ("IrradiationEventUID", ["1.2.3", "1.2.4"]),
        ("TemporalPositionIdentifier", [1, 2]),
        ("ImageType", [["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "PRIMARY", "AXIAL"]]),
        ("ConvolutionKernel", ["B30f", "B60f"]),
        ("KVP", [80, 140]),
        ("FrameOfReferenceUID", ["1.2.3", "1.2.4"]),
        ("AcquisitionTime", ["101500", "101507.2"]),
        ("ContentTime", ["101500", "101507.2"]),
    ],
)
def test_acquisitions_among_each_other_are_refused(
    tmp_path: Path, write_slice: Write, heights: list[float], tag: str, values: list[Any]
) -> None:
    write(tmp_path, write_slice, heights, **{tag: [values[0]] * 6 + [values[1]] * 6})
    words = rf"^{tmp_path}: one series holds 2 acquisitions that overlap in height: {tag} .*"
    words += r"\(6 files, such as 0\d\.dcm\), .* \(6 files, such as (06|11)\.dcm\)"
    with pytest.raises(ValueError, match=words):
        open_series(tmp_path)


@pytest.mark.parametrize(
    "numbers",
    [
        [*range(1, 13)],  # the numbers count through the heights twice
        [*range(1, 7), *range(12, 6, -1)],
        [*range(1, 7)] * 2,  # all of them are there twice
    ],
)
def test_acquisitions_are_told_apart_by_the_numbers_of_their_slices(
    tmp_path: Path, write_slice: Write, numbers: list[int]
) -> None:
    write(tmp_path, write_slice, BETWEEN, InstanceNumber=numbers)
    with pytest.raises(ValueError, match="2 acquisitions that overlap in height: InstanceNumber"):
        open_series(tmp_path)


@pytest.mark.parametrize(
    "acquisitions",
    [TWO, [str(k) for k in range(N)], [str(k // 2) for k in range(N)], ["1"] * 5 + [None] * 7],
)
def test_acquisitions_one_after_the_other_are_one_scan(
    tmp_path: Path, write_slice: Write, acquisitions: list[str | None]
) -> None:
    heights = [2.5 * k for k in range(N)]
    write(tmp_path, write_slice, heights, AcquisitionNumber=acquisitions)
    assert np.array_equal(read_volume(tmp_path).voxels, STORED.T - 1024)


@pytest.mark.parametrize("seed", range(5))
def test_numbers_in_no_order_are_no_acquisitions(
    tmp_path: Path, write_slice: Write, seed: int
) -> None:
    numbers = np.random.default_rng(seed).permutation(N).tolist()
    times = [f"10{k:02}00" for k in numbers]
    heights = [2.5 * k for k in range(N)]
    write(tmp_path, write_slice, heights, InstanceNumber=numbers, ContentTime=times)
    assert open_series(tmp_path).shape == (4, 6, N)


def test_slices_that_were_computed_side_by_side_are_one_acquisition(
    tmp_path: Path, write_slice: Write
) -> None:
    """Their times, in whole seconds, are out of order where one second follows the other."""
    times = [f"1015{second:02}" for second in (0, 0, 0, 1, 0, 1, 1, 1, 2, 2, 2, 2)]
    heights = [2.5 * k for k in range(N)]
    write(tmp_path, write_slice, heights, ContentTime=times)
    assert open_series(tmp_path).shape == (4, 6, N)


def test_a_slice_that_is_there_twice_is_named(tmp_path: Path, write_slice: Write) -> None:
    """It is no second acquisition, though the numbers count through its height twice."""
    heights = [2.5 * k for k in range(6)] + [2.5 * k for k in range(5, 11)]
    write(tmp_path, write_slice, heights)
    with pytest.raises(ValueError, match=r"0[56]\.dcm: has the position of 0[56]\.dcm; keep one"):
        open_series(tmp_path)


# --- Copies and patients --------------------------------------------------------------------------


def test_a_copy_of_a_file_counts_once(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, STORED[:5])
    expected = read_volume(tmp_path).voxels
    shutil.copy(tmp_path / "e.dcm", tmp_path / "copy.dcm")
    assert np.array_equal(read_volume(tmp_path).voxels, expected)


def test_two_files_of_one_instance_are_refused(
    tmp_path: Path, write_slice: Write, write_series: Write
) -> None:
    write_series(tmp_path, STORED[:5])
    for k in range(2):
        place = {"ImagePositionPatient": [7, 7, 19.5], "SOPInstanceUID": "1.2.3.4"}
        write_slice(tmp_path / f"x{k}.dcm", STORED[5 + k], **place)
    words = rf"x1\.dcm: has the SOPInstanceUID of {tmp_path / 'x0.dcm'}, but differs .*; keep one"
    with pytest.raises(ValueError, match=words):
        open_series(tmp_path)


@pytest.mark.parametrize("tag", ["PatientID", "StudyInstanceUID"])
def test_a_series_of_two_patients_is_refused(tmp_path: Path, write_slice: Write, tag: str) -> None:
    values = ["1.7"] * 6 + ["1.8"] * 6
    write(tmp_path, write_slice, [2.5 * k for k in range(N)], **{tag: values})
    words = rf"06\.dcm: has another {tag} than {tmp_path / '00.dcm'}, but the same SeriesInst"
    with pytest.raises(ValueError, match=words) as caught:
        open_series(tmp_path)
    assert "1.7" not in str(caught.value)


# --- Several folders ------------------------------------------------------------------------------


@pytest.fixture
def halves(tmp_path: Path, write_slice: Write) -> tuple[Path, Path]:
    """A series, half of it in each of two folders."""
    whole = write(tmp_path / "whole", write_slice, [2.5 * k for k in range(N)])
    folders = tmp_path / "ct" / "a", tmp_path / "ct" / "b"
    for k, file in enumerate(sorted(whole.iterdir())):
        folders[k % 2].mkdir(parents=True, exist_ok=True)
        shutil.move(file, folders[k % 2] / file.name)
    return folders


def test_a_series_in_several_folders_is_one(tmp_path: Path, halves: tuple[Path, Path]) -> None:
    found, bad = find_series([tmp_path, tmp_path / "ct", *halves])
    assert not bad
    (series,) = found
    assert (series.folders, series.home, len(series.files)) == (halves, tmp_path / "ct", N)
    volume = read_volume(halves, series=series.uid)
    assert np.array_equal(volume.voxels, STORED.T - 1024)
    assert volume.source == tmp_path / "ct"
    stack = read_stack(halves, tmp_path / "spool")
    assert np.array_equal(np.stack([*stack.slices]), read_stack(halves).slices)
    assert len(stack.files) == N


def test_series_without_a_uid_are_of_one_folder(tmp_path: Path, write_series: Write) -> None:
    for name in "ab":
        write_series(tmp_path / name, STORED[:3], SeriesInstanceUID=None)
    found, _ = find_series([tmp_path / "a", tmp_path / "b"])
    assert [series.home for series in found] == [tmp_path / "a", tmp_path / "b"]


def test_a_whole_copy_in_another_folder_counts_once(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "a", STORED[:5])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (series,), _ = find_series([tmp_path / "a", tmp_path / "b"])
    expected = read_volume(tmp_path / "a").voxels
    assert np.array_equal(read_volume(series.folders).voxels, expected)


def test_an_unreadable_file_is_that_of_its_series(tmp_path: Path, write_series: Write) -> None:
    """Its UID stands in the file, and other series of the folder are as they were."""
    write_series(tmp_path, STORED[:5])
    write_series(tmp_path, STORED[:2], names="xy", SeriesInstanceUID="1.2.33")
    file = tmp_path / "c.dcm"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"\x20\x00\x0e\x00UI", b"\x20\x00\x0e\x00UK"))
    found, bad = find_series([tmp_path])
    assert not bad
    assert [(series.uid, len(series.files)) for series in found] == [("1.2.3", 5), ("1.2.33", 2)]
    with pytest.raises(ValueError, match=r"c\.dcm: unreadable .*; fetch it again or remove it"):
        open_series(tmp_path, "1.2.3")
    assert open_series(tmp_path, "1.2.33").shape == (4, 6, 2)


def test_a_file_of_an_unknown_series_costs_its_folder(
    tmp_path: Path, halves: tuple[Path, Path], write_series: Write
) -> None:
    write_series(tmp_path / "good", STORED[:5], SeriesInstanceUID="1.2.9")
    (halves[1] / "cut.dcm").write_bytes(b"")
    found, bad = find_series([*halves, tmp_path / "good"])
    assert [*bad] == [halves[1]]
    assert [series.uid for series in found] == ["1.2.3", "1.2.9"]
    with pytest.raises(ValueError, match=r"cut\.dcm: unreadable"):
        read_volume(halves, series="1.2.3")


# --- One UID for several scans --------------------------------------------------------------------


def test_folders_with_slices_at_the_same_places_are_scans_of_their_own(
    tmp_path: Path, write_slice: Write
) -> None:
    heights = [8.0 * k for k in range(3)]
    for name in ("plain", "other"):
        uids = [f"1.2.3.{len(name)}{name == 'other':d}.{k}" for k in range(3)]
        write(tmp_path / name, write_slice, heights, SOPInstanceUID=uids)
    folders = [tmp_path / "other", tmp_path / "plain"]
    found, bad = find_series(folders)
    assert not bad
    assert [one.folders for one in found] == [(folder,) for folder in folders]
    assert not are_parts(folders[0], folders[1], found[0].uid)
    assert len(find_jobs([str(tmp_path)])) == 2
    assert not any(job.scan.fault for job in find_jobs([str(folder) for folder in folders]))


def test_a_half_whose_files_are_unreadable_makes_the_scan_unreadable(
    tmp_path: Path, halves: tuple[Path, Path]
) -> None:
    for file in halves[1].iterdir():
        content = file.read_bytes()
        file.write_bytes(content.replace(b"\x20\x00\x0e\x00UI", b"\x20\x00\x0e\x00UK"))
    (series,), _ = find_series(halves)
    with pytest.raises(ValueError, match=r"unreadable"):
        open_series(series.folders, series.uid)


def test_folders_of_two_patients_with_one_uid_are_two_scans(
    tmp_path: Path, write_slice: Write
) -> None:
    for k, name in enumerate("ab"):
        heights = [8.0 * (3 * k + i) for i in range(3)]
        write(tmp_path / name, write_slice, heights, PatientID=[name] * 3)
    found, _ = find_series([tmp_path / "a", tmp_path / "b"])
    assert [one.patient for one in found] == ["a", "b"]
