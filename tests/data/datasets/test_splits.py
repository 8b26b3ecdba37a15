"""Splits that leak a patient make every score worthless: none may."""

from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.data.datasets.splits import (
    PARTS,
    assign,
    keep_labels,
    read_split,
    write_split,
)

LESIONS = ["has_ggo", "has_consolidation"]
SEEDS = st.integers(0, 2**32 - 1)
UNIT = st.tuples(st.booleans(), st.booleans(), st.booleans())  # labelled, GGO, consolidation


def manifest(patients: list[list[tuple[bool, bool, bool]]]) -> pd.DataFrame:
    """Slices of patients p0, p1, ...; no lesion is known where nothing is labelled."""
    rows = [
        (f"{i}_{j}", f"p{i}", labelled, labelled, labelled and ggo, labelled and consolidation)
        for i, units in enumerate(patients)
        for j, (labelled, ggo, consolidation) in enumerate(units)
    ]
    return pd.DataFrame(rows, columns=["slice", "patient", "labelled", "complete", *LESIONS])


ANYONE = st.lists(UNIT, min_size=1, max_size=4)
LABELLED = ANYONE.map(lambda units: [(True, *units[0][1:]), *units[1:]])
MANIFESTS = st.builds(
    lambda labelled, others: manifest(labelled + others),
    st.lists(LABELLED, min_size=3, max_size=10),
    st.lists(ANYONE, max_size=5),
)


def to_deal(table: pd.DataFrame) -> int:
    """Patients with a complete slice."""
    return table["patient"][table["complete"]].nunique()


def plain(n: int, *, per_patient: int = 2) -> pd.DataFrame:
    """n patients, all labelled, every second slice with GGO, every third with consolidation."""
    return manifest(
        [[(True, k % 2 == 0, k % 3 == 0) for k in range(i, i + per_patient)] for i in range(n)]
    )


# --- Parts ----------------------------------------------------------------------------------------


def test_with_no_folds_all_train() -> None:
    assert (assign(plain(2), folds=0) == "train").all()


def test_five_folds_are_the_articles_shares() -> None:
    table = plain(50, per_patient=5)
    for fold in range(5):
        assert assign(table, fold=fold).value_counts().to_dict() == {
            "train": 150,
            "validation": 50,
            "test": 50,
        }


def test_without_validation_its_fold_trains() -> None:
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
    with pytest.raises(ValueError, match=f"between 3 and the number of patients .*, 6: {folds}"):
        assign(plain(6), folds=folds)


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_out_of_range_is_refused(fold: int) -> None:
    with pytest.raises(ValueError, match=f"fold must be between 0 and 4, got {fold}"):
        assign(plain(6), fold=fold)


def test_too_few_labels_to_split_are_told() -> None:
    none = plain(6).assign(labelled=False, complete=False)
    with pytest.raises(ValueError, match="no slice has a label, so there is nothing to test on"):
        assign(none)
    two = plain(6)
    two["complete"] = two["patient"].isin(["p0", "p1"])
    with pytest.raises(ValueError, match="every pixel has one label: 2, but training"):
        assign(two)


def test_patients_who_cannot_be_tested_on_train() -> None:
    table = plain(20, per_patient=1)
    table["complete"] = table.index < 10
    for fold in range(5):
        part = assign(table, fold=fold)
        assert (part[10:] == "train").all()
        assert part[:10].value_counts().to_dict() == {"train": 6, "validation": 2, "test": 2}
    with pytest.raises(ValueError, match="with a slice whose every pixel has one label, 10: 11"):
        assign(table, folds=11)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(table=MANIFESTS, folds=st.integers(3, 15), seed=SEEDS)
def test_every_patient_is_tested_once_and_no_patient_is_on_two_sides(
    table: pd.DataFrame, folds: int, seed: int
) -> None:
    folds = min(folds, to_deal(table))
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
    folds = min(folds, to_deal(table))
    patients = table.groupby("patient")[["complete", *LESIONS]].any()
    tested = []
    for fold in range(folds):
        part = assign(table, fold=fold, folds=folds, seed=seed)
        of_patient = part.groupby(table["patient"]).first()
        counts = patients.groupby(of_patient).sum()
        assert (counts.gt(0).all() | (patients.sum() < folds)).all(), "a part lacks something"
        tested.append(counts.loc["test"])
    spread = pd.concat(tested, axis=1)
    assert (spread.max(axis=1) - spread.min(axis=1) <= 1).all()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(table=MANIFESTS, seed=SEEDS, random=st.randoms(use_true_random=False))
def test_the_order_of_rows_decides_nothing(table: pd.DataFrame, seed: int, random: Random) -> None:
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


@pytest.mark.parametrize("column", ["slice", "patient", "labelled", "complete", *LESIONS])
def test_a_manifest_without_a_column_is_refused(column: str) -> None:
    with pytest.raises(ValueError, match=f"the manifest has no column {column}; write it anew"):
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


@pytest.mark.parametrize("by", ["slice", "patient"])
@settings(derandomize=True, deadline=None, max_examples=60)
@given(table=MANIFESTS, seed=SEEDS)
def test_budgets_are_nested_exact_and_have_both_lesions(
    by: Literal["slice", "patient"], table: pd.DataFrame, seed: int
) -> None:
    parts = assign(table, folds=3, seed=seed)
    labelled, training = table["labelled"], parts == "train"
    most = table[by][labelled & training].nunique()
    smaller = pd.Series(False, index=table.index)
    for n in range(1, most + 1):
        kept = keep_labels(table, parts, n, by=by, seed=seed)
        assert kept[~training].equals(labelled[~training])
        chosen = table[kept & training]
        assert chosen[by].nunique() == n
        assert (labelled & training)[table[by].isin(chosen[by])].sum() == len(chosen)
        assert kept[smaller & training].all()
        available = table.loc[labelled & training, LESIONS].any()
        assert chosen[LESIONS].any().equals(available) or n == 1
        assert chosen[LESIONS].any(axis=None) or not available.any()
        smaller = kept
    if most:
        assert smaller.equals(labelled)


def test_sets_of_labels_do_not_count_and_are_kept() -> None:
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
    for strange in (parts[::-1], parts[:-1], parts.replace("test", "tset")):
        with pytest.raises(ValueError, match="parts must be what assign gives for this very"):
            keep_labels(table, strange, 3)
        with pytest.raises(ValueError, match="parts must be what assign gives for this very"):
            write_split(tmp_path / "split.csv", table, strange)
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
def test_what_is_written_is_read_whatever_the_names_and_the_order(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("split") / "split.csv"
    table = plain(len(names), per_patient=1).assign(slice=names, patient=names[::-1])
    parts = assign(table, folds=3)
    write_split(path, table, parts)
    pd.testing.assert_series_equal(read_split(path, table), parts)
    pd.testing.assert_series_equal(read_split(path, table[::-1]), parts[::-1])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    table = plain(10)
    write_split(tmp_path / "split.csv", table, assign(table))
    return tmp_path / "split.csv"


def test_a_split_of_another_manifest_is_refused_with_what_differs(written: Path) -> None:
    table = plain(11)[6:].replace({"patient": {"p5": "x"}})
    with pytest.raises(ValueError, match="made for another manifest") as caught:
        read_split(written, table)
    assert str(caught.value) == (
        f"{written}: made for another manifest: 0_0, 0_1, 1_0 and 3 more not in the manifest; "
        "10_0, 10_1 not in the split; 5_0, 5_1 of another patient; split again or take the "
        "manifest it was made for"
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("slice,patient", "name,patient", "not a split: that has the columns slice, patient and"),
        ("1_0,p1", "0_0,p0", "and a row for each slice; split again"),
        (",test", ",tset", "a part is not one of train, validation, test"),
        ("1_0,p1,", '1_0,"p1,', "not a readable table; split again"),
    ],
)
def test_a_file_that_is_no_split_is_refused(written: Path, old: str, new: str, words: str) -> None:
    written.write_text(written.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=words) as caught:
        read_split(written, plain(10))
    assert str(caught.value).startswith(f"{written}: ")


def test_an_edited_split_with_a_patient_in_two_parts_is_refused(written: Path) -> None:
    lines = written.read_text().splitlines()
    lines[1] = "0_0,p0," + ("train" if lines[1].endswith("test") else "test")
    written.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"split\.csv: p0 in two parts; split again"):
        read_split(written, plain(10))


def test_a_missing_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"split\.csv: missing; write a split there first"):
        read_split(tmp_path / "split.csv", plain(10))
