"""Shared patients and copies of images are refused; patients who look alike are not."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pyro_stitchnet.data.datasets import leakage
from pyro_stitchnet.data.datasets.leakage import (
    DISTANCE,
    LeakageError,
    copied,
    perceptual_hash,
)

NamedImage = tuple[str, str, np.ndarray]  # name, patient, grey values


def manifest(images: list[NamedImage]) -> pd.DataFrame:
    rows = [(name, patient, perceptual_hash(image)) for name, patient, image in images]
    return pd.DataFrame(rows, columns=["slice", "patient", "hash"], dtype=str)


def check(parts: dict[str, list[NamedImage]]) -> None:
    of_each = [part for part, images in parts.items() for _ in images]
    whole = [image for images in parts.values() for image in images]
    leakage.check(manifest(whole), pd.Series(of_each, dtype=str))


def merge_duplicates(images: list[NamedImage]) -> dict[str, str]:
    return leakage.merge_duplicates(manifest(images))


def grey(seed: int) -> np.ndarray:
    """Return a smooth random image, (96, 128), in [0, 1]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((128, 96))) / 255


def images(*seeds: int) -> list[NamedImage]:
    """Return one slice of each of as many patients."""
    return [(f"{seed}.png", f"p{seed}", grey(seed)) for seed in seeds]


def saved_as_jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray((image * 255).astype(np.uint8)).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file)) / 255


def halved(image: np.ndarray) -> np.ndarray:
    small = Image.fromarray((image * 255).astype(np.uint8)).resize((64, 48))
    return np.asarray(small) / 255


def noisy(image: np.ndarray) -> np.ndarray:
    return np.clip(image + np.random.default_rng(0).normal(0, 0.03, image.shape), 0, 1)


def test_parts_without_a_common_patient_or_image_pass() -> None:
    check({"train": images(*range(20)), "validation": images(30), "test": images(40, 41)})


def test_copies_within_one_part_pass() -> None:
    check({"train": [*images(1), ("again.png", "p9", grey(1))], "test": images(2)})


def test_a_patient_in_two_parts_is_refused() -> None:
    train = [*images(1, 2), ("other.png", "p4", grey(9))]
    with pytest.raises(LeakageError) as caught:
        check({"train": train, "validation": images(3), "test": images(4, 5)})
    assert str(caught.value) == (
        "1 patients in two parts; split by patient, with "
        "pyro_stitchnet.data.datasets.splits.assign:\n"
        "  patient p4: train and test"
    )


@pytest.mark.parametrize(
    "change",
    [np.copy, np.float32, saved_as_jpeg, halved, noisy, lambda a: a**1.2, lambda a: a * 0.6 + 0.1],
)
def test_a_copy_in_another_part_is_refused(change: object) -> None:
    assert callable(change)
    copy = ("copy.png", "p9", change(grey(1)))
    with pytest.raises(LeakageError) as caught:
        check({"train": images(1, 2), "test": [*images(3), copy]})
    message = str(caught.value)
    assert message.startswith("1 copies of one image in two parts; give their patients one name")
    assert "merge_duplicates" in message
    for line in ("1.png of p1 (train)", "copy.png of p9 (test)"):
        assert line in message
    assert "2.png" not in message


def test_of_many_cases_the_first_are_listed() -> None:
    train = images(*range(13))
    with pytest.raises(LeakageError) as caught:
        check({"train": train, "test": train})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("13 patients")
    assert len(lines) == 12
    assert lines[-1] == "  and 3 more"


def test_images_of_one_grey_value_are_no_copies() -> None:
    def blank(patient: str, value: float) -> NamedImage:
        return (f"{patient}.png", patient, np.full((32, 32), value))

    check({"train": [blank("p1", 0), blank("p2", 1)], "test": [blank("p3", 0), blank("p4", 0.3)]})


def test_empty_parts_pass() -> None:
    check({})
    check({"train": [], "test": images(1)})
    assert merge_duplicates([]) == {}


@pytest.mark.parametrize(
    "image",
    [
        np.full((8, 8), 1.1),
        np.full((8, 8), -0.1),
        np.full((8, 8), np.nan),
        np.zeros((8, 8, 3)),
        np.zeros((0, 8)),
    ],
)
def test_an_image_that_is_not_grey_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"an image must be grey values in \[0, 1\]"):
        perceptual_hash(image)


def test_patients_with_copies_become_one_and_can_be_split() -> None:
    # 1 and 2 share an image, 2 and 3 another: all three are one patient; 4 and 5 stay.
    whole: list[NamedImage] = [
        ("a", "p2", grey(1)), ("b", "p1", noisy(grey(1))), ("c", "p2", grey(2)),
        ("d", "p3", halved(grey(2))), *images(4, 5),
    ]  # fmt: skip
    merged = merge_duplicates(whole)
    assert merged == {"p1": "p1", "p2": "p1", "p3": "p1", "p4": "p4", "p5": "p5"}
    whole = [(name, merged[patient], image) for name, patient, image in whole]
    check({"train": whole[:4], "validation": whole[4:5], "test": whole[5:]})


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    bits=st.lists(st.sets(st.integers(0, 255), max_size=20), min_size=2, max_size=30),
    groups=st.lists(st.sampled_from("abc"), min_size=30, max_size=30),
)
def test_pairs_equal_those_of_brute_force(bits: list[set[int]], groups: list[str]) -> None:
    flags = np.zeros((len(bits), 256), np.uint8)
    for row, these in zip(flags, bits, strict=True):
        row[[0, *these]] = 1
    hashes = [row.tobytes().hex() for row in np.packbits(flags, axis=1)]
    expected = {
        frozenset((i, j))
        for i in range(len(bits))
        for j in range(i)
        if groups[i] != groups[j] and (flags[i] != flags[j]).sum() <= DISTANCE
    }
    pairs = list(leakage._copies(hashes, groups[: len(bits)]))
    assert len(pairs) == len(expected)
    assert {frozenset(pair) for pair in pairs} == expected


def test_copies_of_other_images_are_found() -> None:
    saved = [perceptual_hash(saved_as_jpeg(grey(n))) for n in (1, 3)]
    one = [perceptual_hash(grey(n)) for n in (1, 2, 3)]
    assert copied(one, "".join(saved)).tolist() == [True, False, True]
    assert copied(one[1:2], "".join(saved)).tolist() == [False]
    assert copied(one, "").tolist() == [False] * 3
    assert copied([], "".join(saved)).tolist() == []


# --- Real slices ----------------------------------------------------------------------------------

SHARED = Path(os.environ.get("STITCHNET_SHARED", Path(__file__).parents[4] / "shared" / "data"))
COVID = SHARED / "covid-ct"


@pytest.fixture(scope="module")
def real() -> list[NamedImage]:
    if not COVID.is_dir():
        pytest.skip(f"needs the slices of {COVID}; set STITCHNET_SHARED")
    whole: list[NamedImage] = []
    for part in ("labelled", "unlabelled", "partial"):
        index = pd.read_csv(COVID / part / "index.csv", dtype=str)
        for name, patient in zip(index["file"], index["patient"], strict=True):
            with Image.open(COVID / part / "images" / name) as image:
                whole.append((name, patient, np.asarray(image.convert("L")) / 255))
    return whole


def test_real_patients_do_not_look_alike(real: list[NamedImage]) -> None:
    assert all(patient == common for patient, common in merge_duplicates(real).items())


def test_real_copies_are_found_without_their_patients(real: list[NamedImage]) -> None:
    journal = [(name, name, image) for name, _, image in real if name.startswith("medseg")]
    merged = merge_duplicates(journal)
    assert {patient for patient, common in merged.items() if patient != common} == {"medseg_43.png"}
    assert merged["medseg_43.png"] == "medseg_10.png"
