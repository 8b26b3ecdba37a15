"""Splits keep patients together and spread lesions evenly; budgets of labels are nested."""

from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.data.datasets.splits import PARTS, assign, keep_labels, write_split

LESION_COLUMNS = ["has_ggo", "has_consolidation"]
SEEDS = st.integers(0, 2**32 - 1)
UNIT = st.tuples(st.booleans(), st.booleans(), st.booleans())  # labelled, GGO, consolidation


def manifest(patients: list[list[tuple[bool, bool, bool]]]) -> pd.DataFrame:
    """Return slices of patients p0, p1, ...; unlabelled slices have no known lesion."""
    rows = [
        (f"{i}_{j}", f"p{i}", labelled, labelled, labelled and ggo, labelled and consolidation)
        for i, units in enumerate(patients)
        for j, (labelled, ggo, consolidation) in enumerate(units)
    ]
    return pd.DataFrame(rows, columns=["slice", "patient", "labelled", "complete", *LESION_COLUMNS])


ANYONE = st.lists(UNIT, min_size=1, max_size=4)
LABELLED = ANYONE.map(lambda units: [(True, *units[0][1:]), *units[1:]])
MANIFESTS = st.builds(
    lambda labelled, others: manifest(labelled + others),
    st.lists(LABELLED, min_size=3, max_size=10),
    st.lists(ANYONE, max_size=5),
)


def complete_patients(table: pd.DataFrame) -> int:
    """Return the number of patients with a complete slice."""
    return table["patient"][table["complete"]].nunique()


def plain(n: int, *, per_patient: int = 2) -> pd.DataFrame:
    """Return n labelled patients; every second slice has GGO, every third consolidation."""
    return manifest(
        [[(True, k % 2 == 0, k % 3 == 0) for k in range(i, i + per_patient)] for i in range(n)]
    )


# --- Parts ----------------------------------------------------------------------------------------


def test_with_no_folds_all_patients_are_for_training() -> None:
    assert (assign(plain(2), folds=0) == "train").all()


def test_five_folds_are_the_articles_shares() -> None:
    table = plain(50, per_patient=5)
    for fold in range(5):
        assert assign(table, fold=fold).value_counts().to_dict() == {
            "train": 150,
            "validation": 50,
            "test": 50,
        }


def test_without_validation_its_fold_is_for_training() -> None:
    table = plain(20)
    for fold in range(5):
        with_one, without = (assign(table, fold=fold, validation=v) for v in (True, False))
        assert (without == with_one.replace("validation", "train")).all()
    assert assign(plain(2), folds=2, validation=False).value_counts().to_dict() == {
        "train": 2,
        "test": 2,
    }
    with pytest.raises(ValueError, match="between 2 and"):
        assign(table, folds=1, validation=False)


@pytest.mark.parametrize("folds", [-1, 1, 2, 7])
def test_a_wrong_number_of_folds_is_refused(folds: int) -> None:
    with pytest.raises(
        ValueError, match=f"between 3 and the number of patients .*, 6, got {folds}"
    ):
        assign(plain(6), folds=folds)


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_out_of_range_is_refused(fold: int) -> None:
    with pytest.raises(ValueError, match=f"fold must be between 0 and 4, got {fold}"):
        assign(plain(6), fold=fold)


def test_too_few_labels_to_split_are_refused() -> None:
    none = plain(6).assign(labelled=False, complete=False)
    with pytest.raises(ValueError, match="no slice is labelled, so there is nothing to test on"):
        assign(none)
    two = plain(6)
    two["complete"] = two["patient"].isin(["p0", "p1"])
    with pytest.raises(ValueError, match="every pixel has one label: 2, but training"):
        assign(two)


def test_patients_without_a_complete_slice_are_for_training() -> None:
    table = plain(20, per_patient=1)
    table["complete"] = table.index < 10
    for fold in range(5):
        part = assign(table, fold=fold)
        assert (part[10:] == "train").all()
        assert part[:10].value_counts().to_dict() == {"train": 6, "validation": 2, "test": 2}
    with pytest.raises(
        ValueError, match="with a slice whose every pixel has one label, 10, got 11"
    ):
        assign(table, folds=11)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(table=MANIFESTS, folds=st.integers(3, 15), seed=SEEDS)
def test_every_patient_is_tested_once_and_is_in_one_part(
    table: pd.DataFrame, folds: int, seed: int
) -> None:
    folds = min(folds, complete_patients(table))
    by_fold = [assign(table, fold=fold, folds=folds, seed=seed) for fold in range(folds)]
    for part in by_fold:
        assert set(part) == set(PARTS)
        assert (part.groupby(table["patient"]).nunique() == 1).all()
    together = pd.concat(by_fold, axis=1)
    dealt = table["complete"].groupby(table["patient"]).transform("any").astype(int)
    assert ((together == "test").sum(axis=1) == dealt).all()
    assert ((together == "validation").sum(axis=1) == dealt).all()


@settings(derandomize=True, deadline=None, max_examples=40)
@given(table=MANIFESTS, folds=st.integers(3, 5), seed=SEEDS)
def test_folds_share_patients_labels_and_lesions_evenly(
    table: pd.DataFrame, folds: int, seed: int
) -> None:
    folds = min(folds, complete_patients(table))
    patients = table.groupby("patient")[["complete", *LESION_COLUMNS]].any()
    tested = []
    for fold in range(folds):
        part = assign(table, fold=fold, folds=folds, seed=seed)
        of_patient = part.groupby(table["patient"]).first()
        counts = patients.groupby(of_patient).sum()
        assert (counts.gt(0).all() | (patients.sum() < folds)).all(), "a part lacks a lesion"
        tested.append(counts.loc["test"])
    spread = pd.concat(tested, axis=1)
    assert (spread.max(axis=1) - spread.min(axis=1) <= 1).all()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(table=MANIFESTS, seed=SEEDS, random=st.randoms(use_true_random=False))
def test_the_order_of_rows_has_no_effect(table: pd.DataFrame, seed: int, random: Random) -> None:
    order = list(range(len(table)))
    random.shuffle(order)
    parts, other = assign(table, folds=3, seed=seed), table.iloc[order]
    moved = assign(other, folds=3, seed=seed)
    pd.testing.assert_series_equal(moved, parts.iloc[order])
    n = int((table["labelled"] & (parts == "train")).sum())
    if n:
        kept = keep_labels(table, parts, (n + 1) // 2, seed=seed)
        again = keep_labels(other, moved, (n + 1) // 2, seed=seed)
        pd.testing.assert_series_equal(again, kept.iloc[order])


def test_a_seed_gives_the_same_split_in_every_version() -> None:
    table = plain(10, per_patient=1)
    test = table["patient"][assign(table, seed=1) == "test"]
    kept = table["slice"][keep_labels(table, assign(table, seed=1), 3, seed=1)]
    assert list(test) == ["p2", "p3"]
    assert list(kept) == ["1_0", "2_0", "3_0", "5_0", "6_0", "8_0", "9_0"]
    assert list(table["patient"][assign(table, seed=2) == "test"]) != list(test)


@pytest.mark.parametrize("column", ["slice", "patient", "labelled", "complete", *LESION_COLUMNS])
def test_a_manifest_without_a_column_is_refused(column: str) -> None:
    with pytest.raises(ValueError, match=f"the manifest has no column {column}; add it"):
        assign(plain(5).drop(columns=column))


@pytest.mark.parametrize("column", ["slice", "patient"])
@pytest.mark.parametrize("value", ["", None, 7, float("nan")])
def test_a_manifest_without_a_name_is_refused(column: str, value: object) -> None:
    table = plain(5)
    table[column] = [value, *table[column][1:]]
    with pytest.raises(ValueError, match=f"a {column} of the manifest is empty or not text"):
        assign(table)


def test_flags_read_as_text_are_refused() -> None:
    with pytest.raises(ValueError, match="column labelled must be of booleans"):
        assign(plain(5).astype({"labelled": str}))


def test_a_slice_listed_twice_is_refused() -> None:
    table = plain(5)
    with pytest.raises(ValueError, match="the manifest lists 0_0 twice"):
        assign(pd.concat([table, table[:1]]))


# --- Budgets of labels ----------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=60)
@given(table=MANIFESTS, seed=SEEDS)
def test_budgets_are_nested_exact_and_have_both_lesions(table: pd.DataFrame, seed: int) -> None:
    parts = assign(table, folds=3, seed=seed)
    labelled, training = table["labelled"], parts == "train"
    most = (labelled & training).sum()
    smaller = pd.Series(False, index=table.index)
    for n in range(1, most + 1):
        kept = keep_labels(table, parts, n, seed=seed)
        assert kept[~training].equals(labelled[~training])
        chosen = table[kept & training]
        assert len(chosen) == n
        assert kept[smaller & training].all()
        available = table.loc[labelled & training, LESION_COLUMNS].any()
        assert chosen[LESION_COLUMNS].any().equals(available) or n == 1
        assert chosen[LESION_COLUMNS].any(axis=None) or not available.any()
        smaller = kept
    if most:
        assert smaller.equals(labelled)


def test_partially_labelled_slices_do_not_count_and_keep_their_labels() -> None:
    table = plain(10)
    table["complete"] &= ~table["patient"].isin(["p2", "p5"])
    parts = assign(table)
    training = parts == "train"
    kept = keep_labels(table, parts, 3)
    assert kept[training & table["complete"]].sum() == 3
    assert kept[training & ~table["complete"]].all()


def test_another_seed_keeps_other_labels() -> None:
    table = plain(30)
    parts = assign(table)
    chosen = {tuple(np.flatnonzero(keep_labels(table, parts, 5, seed=seed))) for seed in range(5)}
    assert len(chosen) == 5


@pytest.mark.parametrize("n", [-1, 0, 13])
def test_a_budget_out_of_range_is_refused(n: int) -> None:
    table = plain(10)
    with pytest.raises(ValueError, match=f"labels of {n} slices .* 12 slices with .*; give 1 to"):
        keep_labels(table, assign(table), n)


def test_parts_of_another_manifest_are_refused(tmp_path: Path) -> None:
    table = plain(10)
    parts = assign(table)
    for wrong in (parts[::-1], parts[:-1], parts.replace("test", "tset")):
        with pytest.raises(ValueError, match="parts must be those that assign returns"):
            keep_labels(table, wrong, 3)
        with pytest.raises(ValueError, match="parts must be those that assign returns"):
            write_split(tmp_path / "split.csv", table, wrong)
    assert not list(tmp_path.iterdir())


# --- In a file ------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
        min_size=3,
        max_size=8,
        unique=True,
    )
)
def test_a_split_in_a_file_lists_every_slice(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("split") / "split.csv"
    table = plain(len(names), per_patient=1).assign(slice=names, patient=names[::-1])
    parts = assign(table, folds=3)
    write_split(path, table, parts)
    written = pd.read_csv(path, dtype=str, keep_default_na=False)
    expected = table[["slice", "patient"]].assign(part=parts)
    pd.testing.assert_frame_equal(written, expected)
