"""CC-CCII: scans as image files, controls, and labelled slices."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.data.sources import ScanFiles, detect
from pyro_stitchnet.data.sources.ccii import CCII
from pyro_stitchnet.labels import BACKGROUND, HEALTHY


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for scan in ("NCP/12/1024", "NCP/12/1025", "CP/7/3000", "Normal/5/2000"):
        for number in (1, 2, 10):
            write_image(tmp_path / scan / f"{number}.jpg")
    for number in (3, 40):
        write_image(tmp_path / "ct_lesion_seg" / "image" / "12" / f"{number}.jpg")
        write_image(tmp_path / "ct_lesion_seg" / "mask" / "12" / f"{number}.png")
    return tmp_path


def find(root: Path) -> dict[str, ScanFiles]:
    scans = list(CCII.find(root))
    assert len({scan.name for scan in scans}) == len(scans)
    return {scan.name: scan for scan in scans}


def test_every_scan_is_found_and_common_pneumonia_is_not(root: Path) -> None:
    assert list(find(root)) == [
        "NCP/12/1024",
        "NCP/12/1025",
        "Normal/5/2000",
        "ct_lesion_seg/12/3",
        "ct_lesion_seg/12/40",
    ]
    assert detect(root) is CCII


def test_a_scan_is_its_images_in_the_order_of_their_numbers(root: Path) -> None:
    image = find(root)["NCP/12/1024"].image
    assert isinstance(image, tuple)
    assert [path.name for path in image] == ["1.jpg", "2.jpg", "10.jpg"]


def test_a_patient_is_a_folder_also_of_labelled_slices(root: Path) -> None:
    scans = find(root)
    patients = [scan.patient for scan in scans.values()]
    assert patients == ["NCP-12", "NCP-12", "Normal-5", "NCP-12", "NCP-12"]
    assert (scans["NCP/12/1024"].study, scans["NCP/12/1025"].study) == ("1024", "1025")


def test_controls_have_no_lesion_anywhere_and_patients_no_label(root: Path) -> None:
    scans = find(root)
    assert scans["Normal/5/2000"].everywhere == frozenset({BACKGROUND, HEALTHY})
    assert scans["NCP/12/1024"].everywhere is None
    assert all(scan.mask is None for name, scan in scans.items() if "lesion" not in name)


def test_labelled_slices_have_their_masks(root: Path) -> None:
    folder = root / "ct_lesion_seg"
    scan = find(root)["ct_lesion_seg/12/40"]
    assert scan.image == folder / "image" / "12" / "40.jpg"
    assert scan.mask == folder / "mask" / "12" / "40.png"
    assert CCII.rule == {0: {0}, 1: {1}, 2: {2}, 3: {3}}


def test_one_part_is_enough(root: Path, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    (root / "Normal").rename(tmp_path / "only" / "Normal")
    assert list(find(tmp_path / "only")) == ["Normal/5/2000"]


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds neither NCP/ nor Normal/ nor ct_lesion"):
        list(CCII.find(tmp_path))


@pytest.mark.parametrize(
    "path", ["NCP/0001.jpg", "NCP/12/0001.jpg", "Normal/5/0001.png", "ct_lesion_seg/image/9.jpg"]
)
def test_misplaced_images_are_named(root: Path, path: str) -> None:
    write_image(root / path)
    with pytest.raises(ValueError, match=f"{path}: lies a folder too high"):
        list(CCII.find(root))


def test_a_scan_without_images_is_named(root: Path) -> None:
    (root / "NCP" / "13" / "1").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="NCP/13/1: holds no images; unpack"):
        list(CCII.find(root))


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_labelled_slice_without_image_or_mask_is_named(root: Path, part: str) -> None:
    next((root / "ct_lesion_seg" / part / "12").glob("40.*")).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"12/40\.(png: is the mask of no|jpg: has no mask)"
    ):
        list(CCII.find(root))


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_patient_without_images_or_masks_is_named(root: Path, part: str) -> None:
    (root / "ct_lesion_seg" / part / "12").rename(root / "away")
    with pytest.raises(FileNotFoundError, match=f"ct_lesion_seg/{part}/12: "):
        list(CCII.find(root))
