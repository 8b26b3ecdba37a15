"""Zenodo 3757476: volumes with masks of lungs and infection."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pyro_stitchnet.data.sources import detect
from pyro_stitchnet.data.sources.zenodo import ZENODO

NAMES = (
    "coronacases_001",
    "coronacases_010",
    "radiopaedia_4_85506_1",
    "radiopaedia_10_85902_1",
    "radiopaedia_10_85902_3",
    "radiopaedia_29_86490_1",
    "radiopaedia_29_86491_1",
)
IMAGES, MASKS = "COVID-19-CT-Seg_20cases", "Lung_and_Infection_Mask"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in (IMAGES, MASKS):
        (tmp_path / part).mkdir()
        for name in NAMES:
            volume = nib.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4))
            nib.save(volume, tmp_path / part / f"{name}.nii.gz")
    return tmp_path


def test_every_volume_has_its_mask(root: Path) -> None:
    scans = list(ZENODO.find(root))
    assert [scan.name for scan in scans] == list(NAMES)
    for scan in scans:
        assert scan.image == root / IMAGES / f"{scan.name}.nii.gz"
        assert scan.mask == root / MASKS / f"{scan.name}.nii.gz"
    assert detect(root) is ZENODO


def test_two_volumes_of_a_radiopaedia_case_are_of_one_patient(root: Path) -> None:
    scans = {scan.name: scan for scan in ZENODO.find(root)}
    assert scans["radiopaedia_10_85902_1"].patient == scans["radiopaedia_10_85902_3"].patient
    assert scans["radiopaedia_29_86490_1"].patient == scans["radiopaedia_29_86491_1"].patient
    assert scans["radiopaedia_29_86490_1"].study != scans["radiopaedia_29_86491_1"].study
    assert len({scan.patient for scan in scans.values()}) == len(NAMES) - 2


def test_infection_allows_either_lesion_and_both_lungs_are_healthy() -> None:
    assert ZENODO.rule == {0: {0}, 1: {1}, 2: {1}, 3: {2, 3}}


@pytest.mark.parametrize("part", [IMAGES, MASKS])
def test_a_missing_file_is_named(root: Path, part: str) -> None:
    (root / part / "coronacases_010.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"coronacases_010\.nii\.gz: (has no|is the) mask"):
        list(ZENODO.find(root))


@pytest.mark.parametrize("part", [IMAGES, MASKS])
def test_a_missing_folder_is_named(root: Path, part: str) -> None:
    (root / part).rename(root / "away")
    with pytest.raises(FileNotFoundError, match=f"{part}: no such folder"):
        list(ZENODO.find(root))
