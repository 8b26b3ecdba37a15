"""A bare folder of volumes and DICOM series."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyro_stitchnet.data.sources import Scan, detect
from pyro_stitchnet.data.sources.plain import PLAIN


def volume(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4)), path)


def dicom(path: Path) -> None:
    """As much of a DICOM file as tells it from others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + bytes(20))


def find(root: Path) -> dict[str, Scan]:
    return {scan.name: scan for scan in PLAIN.find(root)}


def test_volumes_and_series_are_found_at_any_depth(tmp_path: Path) -> None:
    volume(tmp_path / "p10.nii.gz")
    volume(tmp_path / "p9.nii")
    volume(tmp_path / "ann" / "2020" / "chest.nii.gz")
    (tmp_path / "bob.mha").touch()
    for number in (1, 2):
        dicom(tmp_path / "carl" / "study" / f"IM{number}")
        dicom(tmp_path / "carl" / "other" / f"{number}.dcm")
    scans = find(tmp_path)
    assert list(scans) == ["ann/2020/chest", "bob", "carl/other", "carl/study", "p9", "p10"]
    assert scans["carl/study"].image == tmp_path / "carl" / "study"
    assert scans["ann/2020/chest"].image == tmp_path / "ann" / "2020" / "chest.nii.gz"
    assert all(scan.mask is None and scan.everywhere is None for scan in scans.values())
    assert detect(tmp_path) is PLAIN


def test_what_lies_in_one_folder_below_the_top_is_of_one_patient(tmp_path: Path) -> None:
    volume(tmp_path / "ann" / "first.nii.gz")
    volume(tmp_path / "ann" / "later" / "second.nii.gz")
    volume(tmp_path / "bob.nii.gz")
    assert [scan.patient for scan in find(tmp_path).values()] == ["ann", "ann", "bob"]


def test_a_series_itself_is_named_after_its_folder(tmp_path: Path) -> None:
    dicom(tmp_path / "ann" / "1.dcm")
    (scan,) = PLAIN.find(tmp_path / "ann")
    assert (scan.name, scan.patient, scan.image) == ("ann", "ann", tmp_path / "ann")


def test_series_called_by_their_uids_are_told_apart(tmp_path: Path) -> None:
    for uid in ("1.2.840.1", "1.2.840.2"):
        dicom(tmp_path / "ann" / uid / "1")
    assert list(find(tmp_path)) == ["ann/1.2.840.1", "ann/1.2.840.2"]


def test_what_is_no_scan_is_left_out(tmp_path: Path) -> None:
    volume(tmp_path / "p.nii.gz")
    volume(tmp_path / "._p.nii.gz")
    volume(tmp_path / "__MACOSX" / "p.nii.gz")
    dicom(tmp_path / "DICOMDIR")
    (tmp_path / "notes").write_text("short")
    assert list(find(tmp_path)) == ["p"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        find(tmp_path / "nowhere")
