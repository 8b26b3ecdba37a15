"""MedSeg's images, as a volume and as COVID-SemiSeg."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.data.sources import detect
from pyro_stitchnet.data.sources.medseg import MEDSEG
from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY

TRAIN, TEST = "TrainingSet/MultiClassInfection-Train", "TestingSet/MultiClassInfection-Test"


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


@pytest.fixture(params=["", "Dataset"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """COVID-SemiSeg: three labelled images, the same with coarse labels, one unlabelled."""
    data = tmp_path / request.param
    for part, number in ((TRAIN, 0), (TRAIN, 10), (TEST, 6)):
        write_image(data / part / "Imgs" / f"{number}.jpg")
        write_image(data / part / "GT" / f"{number}.png")
    write_image(data / TRAIN / "Prior" / "0.png")
    for part in ("Doctor-label", "Pseudo-label"):
        write_image(data / "TrainingSet" / "LungInfection-Train" / part / "Imgs" / "0.jpg")
        write_image(data / "TrainingSet" / "LungInfection-Train" / part / "GT" / "0.png")
    return tmp_path


def test_every_image_is_found_once(root: Path) -> None:
    scans = list(MEDSEG.find(root))
    assert [scan.name for scan in scans] == [
        "MultiClassInfection-Train/0",
        "MultiClassInfection-Train/10",
        "MultiClassInfection-Test/6",
        "unlabelled/0",
    ]
    assert [scan.mask is None for scan in scans] == [False, False, False, True]
    assert scans[1].mask is not None
    assert str(scans[1].mask).endswith(f"{TRAIN}/GT/10.png")
    assert str(scans[1].image).endswith(f"{TRAIN}/Imgs/10.jpg")
    assert detect(root) is MEDSEG


def test_without_known_patients_all_images_are_of_one(root: Path) -> None:
    scans = [scan for scan in MEDSEG.find(root) if scan.mask is not None]
    assert {scan.patient for scan in scans} == {"unknown"}
    assert "cannot be split" in MEDSEG.caution


def test_a_table_names_the_patients(root: Path) -> None:
    (root / "patients.csv").write_text("image,patient\n6,a\n10,a\n0,b\n")
    scans = {scan.name.split("/")[1]: scan for scan in MEDSEG.find(root) if scan.mask}
    assert {name: scan.patient for name, scan in scans.items()} == {"0": "b", "10": "a", "6": "a"}


def test_an_image_without_a_row_is_named(root: Path) -> None:
    (root / "patients.csv").write_text("image,patient\n0,b\n6,a\n")
    with pytest.raises(ValueError, match=r"patients\.csv: no row for image 10 \(.*10\.jpg\)"):
        list(MEDSEG.find(root))


@pytest.mark.parametrize("part", ["Imgs", "GT"])
def test_a_missing_image_or_mask_is_named(root: Path, part: str) -> None:
    next(root.glob(f"**/MultiClassInfection-Test/{part}/6.*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"/6\.(png: is the mask of no|jpg: has no mask)"):
        list(MEDSEG.find(root))


def test_the_slices_of_the_volume_are_no_neighbours(tmp_path: Path) -> None:
    for name in ("tr_im.nii.gz", "tr_mask.nii.gz"):
        (tmp_path / name).touch()
    (scan,) = MEDSEG.find(tmp_path)
    assert (scan.image, scan.mask) == (tmp_path / "tr_im.nii.gz", tmp_path / "tr_mask.nii.gz")
    assert not scan.stacked
    assert detect(tmp_path) is MEDSEG


def test_the_volume_without_its_masks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tr_im.nii.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"tr_mask\.nii\.gz: missing"):
        list(MEDSEG.find(tmp_path))


def test_volumes_from_radiopaedia_are_found_and_count_as_one_patient(tmp_path: Path) -> None:
    for path in ("tr_im", "tr_mask", "rp_im/1", "rp_im/9", "rp_msk/1", "rp_msk/9", "rp_lung_msk/1"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / f"{path}.nii.gz").touch()
    whole, *volumes = MEDSEG.find(tmp_path)
    assert whole.name == "tr_im"
    assert [scan.name for scan in volumes] == ["rp_im/1", "rp_im/9"]
    assert [scan.mask for scan in volumes] == [tmp_path / f"rp_msk/{k}.nii.gz" for k in (1, 9)]
    assert {scan.patient for scan in volumes} == {"unknown-volumes"}
    assert all(scan.stacked for scan in volumes)
    for name in ("tr_im.nii.gz", "tr_mask.nii.gz"):
        (tmp_path / name).unlink()
    assert len(list(MEDSEG.find(tmp_path))) == 2
    assert detect(tmp_path) is MEDSEG, "not a plain folder, whose masks would be read as scans"
    (tmp_path / "rp_msk").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="rp_msk: no such folder"):
        list(MEDSEG.find(tmp_path))


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds neither tr_im\.nii\.gz nor rp_im nor Tr"):
        list(MEDSEG.find(tmp_path))


def test_value_0_allows_background_and_healthy_lung_and_effusion_is_background() -> None:
    assert MEDSEG.rule[0] == {BACKGROUND, HEALTHY}
    assert MEDSEG.rule[1] == MEDSEG.rule[38] == {GGO}
    assert MEDSEG.rule[2] == MEDSEG.rule[75] == {CONSOLIDATION}
    assert MEDSEG.rule[3] == {BACKGROUND}


def test_values_38_and_75_are_the_grey_values_of_red_and_green() -> None:
    colours = Image.fromarray(np.array([[[128, 0, 0], [0, 128, 0]]], np.uint8))
    assert list(np.asarray(colours.convert("L"))[0]) == [38, 75]
