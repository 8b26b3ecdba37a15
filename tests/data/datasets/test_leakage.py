"""A patient or a picture on two sides must not pass; two patients who look alike must."""

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
from pyro_stitchnet.data.datasets.leakage import DISTANCE, LeakageError, perceptual_hash

Picture = tuple[str, str, np.ndarray]  # name, patient, grey values


def manifest(pictures: list[Picture]) -> pd.DataFrame:
    rows = [(name, patient, perceptual_hash(image)) for name, patient, image in pictures]
    return pd.DataFrame(rows, columns=["slice", "patient", "hash"], dtype=str)


def check(parts: dict[str, list[Picture]]) -> None:
    sides = [side for side, pictures in parts.items() for _ in pictures]
    whole = [picture for pictures in parts.values() for picture in pictures]
    leakage.check(manifest(whole), pd.Series(sides, dtype=str))


def merge_duplicates(pictures: list[Picture]) -> dict[str, str]:
    return leakage.merge_duplicates(manifest(pictures))


def grey(seed: int) -> np.ndarray:
    """A smooth random picture, (96, 128), in [0, 1]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((128, 96))) / 255


def pictures(*seeds: int) -> list[Picture]:
    """One slice of each of as many patients."""
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


def test_parts_without_a_common_patient_or_picture_pass() -> None:
    check({"train": pictures(*range(20)), "validation": pictures(30), "test": pictures(40, 41)})


def test_copies_within_one_part_pass() -> None:
    check({"train": [*pictures(1), ("again.png", "p9", grey(1))], "test": pictures(2)})


def test_a_patient_on_two_sides_is_refused() -> None:
    train = [*pictures(1, 2), ("other.png", "p4", grey(9))]
    with pytest.raises(LeakageError) as caught:
        check({"train": train, "validation": pictures(3), "test": pictures(4, 5)})
    assert str(caught.value) == (
        "1 patients in two parts; split by patient, with pyro_stitchnet.data.datasets.splits.assign:\n"
        "  patient p4: train and test"
    )


@pytest.mark.parametrize(
    "change",
    [np.copy, np.float32, saved_as_jpeg, halved, noisy, lambda a: a**1.2, lambda a: a * 0.6 + 0.1],
)
def test_a_copy_on_another_side_is_refused(change: object) -> None:
    assert callable(change)
    copy = ("copy.png", "p9", change(grey(1)))
    with pytest.raises(LeakageError) as caught:
        check({"train": pictures(1, 2), "test": [*pictures(3), copy]})
    message = str(caught.value)
    assert message.startswith("1 copies of one picture in two parts; give their patients one name")
    assert "merge_duplicates" in message
    for line in ("1.png of p1 (train)", "copy.png of p9 (test)"):
        assert line in message
    assert "2.png" not in message


def test_many_offenders_are_counted_not_listed() -> None:
    train = pictures(*range(13))
    with pytest.raises(LeakageError) as caught:
        check({"train": train, "test": train})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("13 patients")
    assert len(lines) == 12
    assert lines[-1] == "  and 3 more"


def test_pictures_of_one_grey_value_are_no_copies() -> None:
    def blank(patient: str, value: float) -> Picture:
        return (f"{patient}.png", patient, np.full((32, 32), value))

    check({"train": [blank("p1", 0), blank("p2", 1)], "test": [blank("p3", 0), blank("p4", 0.3)]})


def test_nothing_leaks_from_nothing() -> None:
    check({})
    check({"train": [], "test": pictures(1)})
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
def test_what_is_no_grey_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"a picture must be grey values in \[0, 1\]"):
        perceptual_hash(image)


def test_patients_with_copies_become_one_and_can_be_split() -> None:
    # 1 - 2 by one picture, 2 - 3 by another: all three are one patient; 4 and 5 stay.
    whole: list[Picture] = [
        ("a", "p2", grey(1)), ("b", "p1", noisy(grey(1))), ("c", "p2", grey(2)),
        ("d", "p3", halved(grey(2))), *pictures(4, 5),
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
def test_pairs_are_those_that_every_bit_compared_gives(
    bits: list[set[int]], groups: list[str]
) -> None:
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
    found = list(leakage._copies(hashes, groups[: len(bits)]))
    assert len(found) == len(expected)
    assert {frozenset(pair) for pair in found} == expected


# --- Real slices ----------------------------------------------------------------------------------

SHARED = Path(os.environ.get("STITCHNET_SHARED", Path(__file__).parents[3] / "shared" / "data"))
COVID = SHARED / "covid-ct"


@pytest.fixture(scope="module")
def real() -> list[Picture]:
    if not COVID.is_dir():
        pytest.skip(f"needs the slices of {COVID}; set STITCHNET_SHARED")
    whole: list[Picture] = []
    for part in ("labelled", "unlabelled", "partial"):
        index = pd.read_csv(COVID / part / "index.csv", dtype=str)
        for name, patient in zip(index["file"], index["patient"], strict=True):
            with Image.open(COVID / part / "images" / name) as picture:
                whole.append((name, patient, np.asarray(picture.convert("L")) / 255))
    return whole


def test_real_patients_do_not_look_alike(real: list[Picture]) -> None:
    assert all(patient == common for patient, common in merge_duplicates(real).items())


def test_real_copies_are_found_if_their_patients_are_not_known(real: list[Picture]) -> None:
    journal = [(name, name, image) for name, _, image in real if name.startswith("medseg")]
    merged = merge_duplicates(journal)
    assert {patient for patient, common in merged.items() if patient != common} == {"medseg_43.png"}
    assert merged["medseg_43.png"] == "medseg_10.png"
