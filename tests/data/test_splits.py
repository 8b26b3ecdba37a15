"""Splits that leak a patient make every score worthless: none may."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.data.slices import Slices
from pyro_stitchnet.data.splits import Split, split_by_patient


def slices(per_patient: list[int]) -> Slices:
    """Tiny slices, ``per_patient[i]`` of patient i, shuffled."""
    owners = [f"p{i}" for i, n in enumerate(per_patient) for _ in range(n)]
    order = torch.randperm(len(owners)).tolist()
    n = len(owners)
    return Slices(
        torch.arange(n).reshape(n, 1, 1) / n,
        torch.ones(n, 1, 1).byte(),
        [f"{i}.png" for i in range(n)],
        [owners[i] for i in order],
    )


def parts(split: Split) -> tuple[Slices, Slices, Slices]:
    return split.train, split.validation, split.test


def names(split: Split) -> list[list[str]]:
    return [list(part.names) for part in parts(split)]


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    per_patient=st.lists(st.integers(1, 6), min_size=3, max_size=12),
    folds=st.integers(3, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_slice_is_used_once_and_no_patient_is_shared(
    per_patient: list[int], folds: int, seed: int
) -> None:
    whole, folds = slices(per_patient), min(folds, len(per_patient))
    tested: Counter[str] = Counter()
    validated: Counter[str] = Counter()
    for fold in range(folds):
        split = split_by_patient(whole, fold=fold, folds=folds, seed=seed)
        owners = [set(part.patients) for part in parts(split)]
        assert all(owners)
        assert sum(map(len, owners)) == len(set().union(*owners)) == len(per_patient)
        used = [name for part in names(split) for name in part]
        assert sorted(used) == sorted(whole.names)
        tested.update(split.test.names)
        validated.update(split.validation.names)
    assert tested == validated == Counter(whole.names)


def test_parts_keep_names_patients_and_pictures_together() -> None:
    whole = slices([3] * 5)
    for part in parts(split_by_patient(whole)):
        for image, name, patient in zip(part.images, part.names, part.patients, strict=True):
            i = round(float(image) * len(whole))
            assert (name, patient) == (whole.names[i], whole.patients[i])


def test_five_folds_are_the_articles_shares() -> None:
    for fold in range(5):
        split = split_by_patient(slices([5] * 50), fold=fold)
        assert [len(part) for part in parts(split)] == [150, 50, 50]


def test_the_same_seed_splits_alike_and_another_differently() -> None:
    whole = slices([2] * 20)
    one = names(split_by_patient(whole, seed=3))
    torch.manual_seed(99)
    assert names(split_by_patient(whole, seed=3)) == one
    assert names(split_by_patient(whole, seed=4)) != one


@pytest.mark.parametrize("folds", [-1, 0, 1, 2, 7])
def test_a_wrong_number_of_folds_is_refused(folds: int) -> None:
    with pytest.raises(ValueError, match=f"between 3 and the number of patients, 6: {folds}"):
        split_by_patient(slices([2] * 6), folds=folds)


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_out_of_range_is_refused(fold: int) -> None:
    with pytest.raises(ValueError, match=f"fold must be between 0 and 4, got {fold}"):
        split_by_patient(slices([2] * 6), fold=fold)
