"""MosMedData: graded studies, few with masks."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyro_stitchnet.data.sources import ScanFiles, detect
from pyro_stitchnet.data.sources.mosmed import MOSMED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path in (
        "studies/CT-0/study_0001.nii.gz",
        "studies/CT-1/study_0255.nii.gz",
        "studies/CT-1/study_0256.nii.gz",
        "studies/CT-4/study_1110.nii.gz",
        "masks/study_0255_mask.nii.gz",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4)), tmp_path / path)
    return tmp_path


def find(root: Path) -> dict[str, ScanFiles]:
    return {scan.name: scan for scan in MOSMED.find(root)}


def test_every_study_is_found_and_counts_as_a_patient(root: Path) -> None:
    scans = find(root)
    assert list(scans) == ["study_0001", "study_0255", "study_0256", "study_1110"]
    assert all(scan.patient == name for name, scan in scans.items())
    assert scans["study_1110"].image == root / "studies" / "CT-4" / "study_1110.nii.gz"
    assert detect(root) is MOSMED


def test_a_mask_belongs_to_the_study_of_its_number(root: Path) -> None:
    masks = {name: scan.mask for name, scan in find(root).items() if scan.mask is not None}
    assert masks == {"study_0255": root / "masks" / "study_0255_mask.nii.gz"}
    assert MOSMED.rule == {0: {0, 1}, 1: {2, 3}}


def test_only_grade_0_is_free_of_lesions(root: Path) -> None:
    controls = {name: scan.everywhere for name, scan in find(root).items() if scan.everywhere}
    assert controls == {"study_0001": {0, 1}}


def test_a_mask_replaces_the_label_of_grade_0(root: Path) -> None:
    (root / "masks" / "study_0255_mask.nii.gz").rename(root / "masks" / "study_0001_mask.nii.gz")
    scan = find(root)["study_0001"]
    assert scan.mask is not None
    assert scan.everywhere is None


def test_without_masks_only_controls_are_labelled(root: Path) -> None:
    (root / "masks").rename(root / "away")
    assert all(scan.mask is None for scan in find(root).values())


def test_a_mask_of_no_study_is_named(root: Path) -> None:
    (root / "studies" / "CT-1" / "study_0255.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"study_0255_mask\.nii\.gz: is the mask of no"):
        find(root)


def test_a_misnamed_mask_is_named(root: Path) -> None:
    (root / "masks" / "study_0255_mask.nii.gz").rename(root / "masks" / "study_0255.nii.gz")
    with pytest.raises(ValueError, match=r"masks/study_0255\.nii\.gz: a mask is called"):
        find(root)


def test_another_folder_is_refused(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="CT-1/studies: no such folder"):
        list(MOSMED.find(root / "studies" / "CT-1"))
    for grade in (root / "studies").iterdir():
        grade.rename(root / grade.name)
    with pytest.raises(FileNotFoundError, match="studies: holds no CT-0 to CT-4"):
        list(MOSMED.find(root))
