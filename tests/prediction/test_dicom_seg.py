"""DICOM Segmentations, read back by highdicom and pydicom."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from pyro_stitchnet.data.scans.dicom import open_series
from pyro_stitchnet.prediction.dicom_seg import write_seg

TAGS = {
    "FrameOfReferenceUID": "1.2.9",
    "PatientName": "DOE^JOHN",
    "PatientBirthDate": "19500101",
    "PatientSex": "M",
    "AccessionNumber": "ACC5544",
    "StudyDate": "20200102",
    "StudyTime": "101112",
    "StudyID": "7",
    "InstitutionName": "St. Elsewhere",
    "ReferringPhysicianName": "HOUSE^G",
}


@pytest.fixture
def files(write_series: Callable[..., Path], tmp_path: Path) -> tuple[Path, ...]:
    stored = np.zeros((5, 16, 24), np.uint16)
    folder = write_series(tmp_path / "series", stored, **TAGS)
    return open_series(folder).series.files


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.random.default_rng(0).integers(0, 4, (5, 16, 24)).astype(np.uint8)
    labels[2] = 0
    return labels


def test_written_labels_are_read_back(
    files: tuple[Path, ...], labels: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "seg.dcm"
    assert write_seg(path, labels, files, scan="s", model="m", keep_identifiers=False) == ""
    read = hd.seg.segread(path)
    uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in files]
    back = read.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(back, labels)
    described = [read.get_segment_description(number) for number in (1, 2, 3)]
    kinds = [one.segmented_property_type for one in described]
    assert [(k.scheme_designator, k.value) for k in kinds] == [
        ("SCT", "39607008"), ("DCM", "112120"), ("SCT", "95436008"),
    ]  # fmt: skip
    assert read.get_volume(combine_segments=True).spacing == pytest.approx((2.5, 0.75, 0.5))


def test_identifiers_are_written_only_on_request(
    files: tuple[Path, ...], labels: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "seg.dcm"
    write_seg(path, labels, files, scan="neutral", model="m", keep_identifiers=False)
    content = path.read_bytes()
    for text in (*TAGS.values(), "P7"):
        if len(text) > 5:
            assert text.encode() not in content
    assert pydicom.dcmread(path).PatientID == "neutral"
    write_seg(path, labels, files, scan="neutral", model="m", keep_identifiers=True)
    assert pydicom.dcmread(path).PatientName == "DOE^JOHN"


def test_missing_labels_and_tags_are_reported(
    files: tuple[Path, ...], labels: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "seg.dcm"
    assert "no voxel" in write_seg(
        path, labels * 0, files, scan="s", model="m", keep_identifiers=False
    )
    for file in files:
        head = pydicom.dcmread(file)
        del head.FrameOfReferenceUID
        head.save_as(file)
    problem = write_seg(path, labels, files, scan="s", model="m", keep_identifiers=False)
    assert problem == "the series has no FrameOfReferenceUID"
    assert not path.exists()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_the_file_conforms_to_dicom(
    files: tuple[Path, ...], labels: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "seg.dcm"
    write_seg(path, labels, files, scan="s", model="m", keep_identifiers=False)
    checked = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    errors = [line for line in checked.stderr.splitlines() if line.startswith("Error")]
    assert not errors
