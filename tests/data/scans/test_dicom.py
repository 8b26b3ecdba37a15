"""Folders of DICOM files: listing and choice of series, and errors."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from pyro_stitchnet.data.scans.dicom import Series, find_series, open_series
from pyro_stitchnet.data.scans.volume import Volume

Write = Callable[..., Path]

SHAPE = (5, 6, 4)  # slices, rows, columns; different, so that exchanged axes are detected

# Stored values are unique, so that a value identifies its voxel.
STORED = np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


def read(path: Path, uid: str | None = None) -> Volume:
    return open_series(path, uid).volume()


def refused(path: Path, *words: str, begins: Path | None = None, uid: str | None = None) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"{begins or path}: ")) as caught:
        read(path, uid)
    for word in words:
        assert word in str(caught.value)


def test_the_ct_series_of_a_folder_are_found(
    tmp_path: Path, write_slice: Write, write_series: Write
) -> None:
    write_series(tmp_path, STORED, SeriesDescription="Lung", SeriesNumber=3)
    other = {"SeriesInstanceUID": "1.2.9", "PatientID": None}
    write_series(tmp_path, STORED[:2], names=("y", "x"), **other)
    write_slice(tmp_path / "mr", STORED[0], SeriesInstanceUID="1.2.5", Modality="MR")
    found, bad = find_series([tmp_path])
    assert not bad
    assert found == [
        Series("1.2.3", "3", "Lung", "CT", "P7", "1.2", files(tmp_path, "abcde")),
        Series("1.2.9", "", "", "CT", "", "1.2", files(tmp_path, "xy")),
    ]


def files(folder: Path, names: str) -> tuple[Path, ...]:
    return tuple(folder / f"{name}.dcm" for name in names)


def test_files_that_are_no_slices_are_ignored(
    tmp_path: Path, write_slice: Write, write_series: Write
) -> None:
    write_series(tmp_path, STORED)
    scout = {"SeriesInstanceUID": "1.2.4", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_slice(tmp_path / "scout.dcm", STORED[0], **scout)
    dose = {"SeriesInstanceUID": "1.2.5", "SOPClassUID": SecondaryCaptureImageStorage}
    write_slice(tmp_path / "dose.dcm", STORED[0], ImagePositionPatient=None, **dose)
    report = pydicom.Dataset()
    report.file_meta = pydicom.dataset.FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.6"
    report.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "._a.dcm").write_bytes(b"no DICOM")
    write_slice(tmp_path / "below" / "f.dcm", STORED[0], SeriesInstanceUID="1.2.8")
    write_slice(tmp_path / "below" / "g.dcm", STORED[0])  # of the same UID
    (series,), _ = find_series([tmp_path])
    assert series.files == files(tmp_path, "abcde")
    assert read(tmp_path).voxels.shape == (4, 6, 5)
    refused(tmp_path, "holds no series 1.2.8", uid="1.2.8")


def test_a_secondary_capture_with_a_position_is_a_slice(
    tmp_path: Path, write_series: Write
) -> None:
    write_series(tmp_path, STORED, SOPClassUID=SecondaryCaptureImageStorage)
    assert np.array_equal(read(tmp_path).voxels, STORED.T - 1024)


def test_of_several_series_one_is_chosen(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, STORED, SeriesDescription="Lung")
    write_series(tmp_path, STORED[:1], names=("x",), SeriesInstanceUID="1.2.9")
    words = ("2 CT series", "a folder of its own", "series=", "1.2.3: CT, Lung, 5 slices")
    refused(tmp_path, *words, "1.2.9: CT, no description, 1 slice")
    refused(tmp_path, "no series 8.8", "1.2.3: CT, Lung, 5 slices", uid="8.8")
    assert read(tmp_path, "1.2.3").voxels.shape == (4, 6, 5)
    assert read(tmp_path, "1.2.9").voxels.shape == (4, 6, 1)
    write_series(tmp_path, STORED[:2], names=("x", "y"), SeriesInstanceUID=None)
    assert read(tmp_path, "").voxels.shape == (4, 6, 2)


def test_an_invalid_series_does_not_affect_the_others(
    tmp_path: Path, write_slice: Write, write_series: Write
) -> None:
    write_series(tmp_path, STORED)
    flaws: dict[str, dict[str, Any]] = {
        "1.1": {"PixelSpacing": None},
        "1.2": {"NumberOfFrames": 2},
        "1.2.2": {"Rows": 9},
    }
    for uid, tags in flaws.items():
        write_slice(tmp_path / uid, STORED[0], SeriesInstanceUID=uid, **tags)
    found, bad = find_series([tmp_path])
    assert not bad
    assert [series.uid for series in found] == [*flaws, "1.2.3"]
    assert read(tmp_path, "1.2.3").voxels.shape == (4, 6, 5)
    for uid, words in zip(flaws, ("PixelSpacing", "many frames", "unreadable"), strict=True):
        refused(tmp_path, words, begins=tmp_path / uid, uid=uid)


def test_the_only_ct_series_is_read(
    tmp_path: Path, write_slice: Write, write_series: Write
) -> None:
    write_series(tmp_path, STORED, Modality=None)
    write_slice(tmp_path / "mr", STORED[0], SeriesInstanceUID="1.2.5", Modality="MR")
    volume = read(tmp_path)
    assert volume.voxels.shape == (4, 6, 5)
    assert (volume.study, volume.source) == ("1.2", tmp_path)


def test_missing_texts_are_empty(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, STORED, PatientID=None, StudyInstanceUID=None, SeriesInstanceUID=None)
    (series,), _ = find_series([tmp_path])
    assert (series.uid, series.patient, series.study) == ("", "", "")
    assert read(tmp_path).study == ""


def test_a_path_without_a_ct_series_is_refused(tmp_path: Path, write_slice: Write) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: missing; give a DICOM folder"):
        open_series(tmp_path / "nowhere")
    (tmp_path / "a.png").write_bytes(b"no DICOM")
    refused(tmp_path, "holds no DICOM slices", "of another format, the file")
    (tmp_path / "a.npz").write_bytes(b"no DICOM")
    refused(
        tmp_path / "a.npz",
        "a.npz: neither DICOM nor a file of .nii, ",
        ".npy; convert it",
        "fetch it again",
    )
    (tmp_path / "a.npz").unlink()
    write_slice(tmp_path / "below" / "ct", STORED[0])
    refused(tmp_path, "holds no DICOM slices", "files in subfolders do not count", "itself")
    write_slice(tmp_path / "mr", STORED[0], Modality="MR")
    refused(tmp_path, "no CT series", "1.2.3: MR, no description, 1 slice")


def test_a_truncated_slice_is_never_left_out(tmp_path: Path, write_series: Write) -> None:
    """At any length; an empty file is a slice that was not copied."""
    write_series(tmp_path, STORED)
    file = tmp_path / "c.dcm"  # the topmost slice, whose absence leaves no gap
    content = file.read_bytes()
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        refused(tmp_path, begins=file)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, write_slice: Write
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.dcm"
    write_slice(file, STORED[0], SOPInstanceUID="1.2.3.4", PixelPaddingValue=-2000)
    content = bytearray(file.read_bytes())
    where = st.integers(128, len(content) - 1)
    for at, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), max_size=4)):
        content[at] = value
    file.write_bytes(content[: data.draw(where | st.just(len(content)))])
    try:
        message = f"{read(file).source}: "
    except ValueError as error:
        message = str(error)
    assert message.startswith(f"{file}: ")
