"""Training, validation and test parts that share no patient, and budgets of labels.

A *manifest* is a table with a row for each slice and at least these columns: ``slice``, its name,
one of a kind; ``patient``; and the booleans ``labelled``, ``complete`` (every pixel has one label),
``has_ggo`` and ``has_consolidation``.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pyro_stitchnet.runtime.files import write_atomically

__all__ = [
    "PARTS",
    "assign",
    "keep_labels",
    "read_split",
    "write_split",
]

PARTS = ("train", "validation", "test")
"""The parts of a split, in the order in which they are told."""

LESIONS = ("has_ggo", "has_consolidation")


def assign(
    manifest: pd.DataFrame,
    *,
    fold: int = 0,
    folds: int = 5,
    seed: int = 0,
    validation: bool = True,
) -> pd.Series:
    """Deal the patients into ``folds``: one fold tests, the next validates, the others train.

    With 0 folds all train.

    With 5 folds that is the article's 60 / 20 / 20 % of the patients; over all ``fold`` every
    patient is tested once. Patients without a complete slice cannot be tested on: they train. The
    numbers of the others in two folds differ by at most 1, and so do those of patients with GGO and
    of patients with consolidation: every part has a lesion that at least ``folds`` patients have.
    A patient's other slices go with the complete ones. The order of the rows does not matter.

    Args:
        manifest: see this module's head.
        fold: the fold to test on, 0 to ``folds`` - 1.
        folds: how many folds, 0 or at least 3 (2 without validation) and at most as many as there
            are patients to deal.
        seed: shuffles the patients.
        validation: whether a fold validates; without, it trains.

    Returns:
        One of :data:`PARTS` for each row.

    Raises:
        ValueError: the manifest is unfit, or ``fold`` or ``folds`` is out of range.
    """
    _check(manifest)
    if folds == 0:
        return pd.Series("train", index=manifest.index, name="part")
    patients = manifest.groupby("patient")[["complete", *LESIONS]].any()
    patients = patients[patients["complete"]]
    if not manifest["labelled"].any():
        raise ValueError("no slice has a label, so there is nothing to test on; label some")
    needed = ["training", "validation", "test"] if validation else ["training", "test"]
    if len(patients) < len(needed):
        raise ValueError(
            f"patients with a slice whose every pixel has one label: {len(patients)}, but "
            f"{' and '.join(needed)} need one each; label slices of more, all four tissues"
        )
    if not len(needed) <= folds <= len(patients):
        raise ValueError(
            f"folds must be between {len(needed)} and the number of patients with a slice whose "
            f"every pixel has one label, {len(patients)}: {folds}"
        )
    if not 0 <= fold < folds:
        raise ValueError(f"fold must be between 0 and {folds - 1}, got {fold}")
    patients = patients.loc[_shuffled(patients.index, seed)]
    ggo, consolidation = patients["has_ggo"], patients["has_consolidation"]
    # In this order those with GGO are neighbours, and so are those with consolidation: dealing
    # round after round spreads each of them evenly.
    kinds = [ggo & ~consolidation, ggo & consolidation, consolidation]
    order = np.argsort(np.select(kinds, range(3), 3), kind="stable")
    dealt = pd.Series(np.arange(len(order)) % folds, index=patients.index[order])
    turn = (manifest["patient"].map(dealt) - fold) % folds  # NaN where not dealt
    return pd.Series(
        np.select([turn == 0, (turn == 1) & validation], ["test", "validation"], "train"),
        index=manifest.index,
        name="part",
    )


def keep_labels(
    manifest: pd.DataFrame,
    parts: pd.Series,
    n: int,
    *,
    by: Literal["slice", "patient"] = "slice",
    seed: int = 0,
) -> pd.Series:
    """Choose the ``n`` slices or patients of the training part that keep their labels.

    For one seed every budget holds all smaller ones, so that curves over budgets are paired. The
    first two have GGO and consolidation where training has them; the others come as shuffled.
    Only slices with one label for every pixel count: those with sets of labels keep them.

    Args:
        manifest: see this module's head.
        parts: what :func:`assign` gave for it.
        n: at least 1 and at most as many as training has.
        by: what ``n`` counts: slices, or patients with all their slices.
        seed: shuffles.

    Returns:
        The column ``labelled`` under the budget; validation and test keep their labels.

    Raises:
        ValueError: the manifest is unfit, ``parts`` is not of it, or ``n`` is out of range.
    """
    _check(manifest, parts)
    training = parts == "train"
    counted = training & manifest["complete"]
    units = manifest[counted].groupby(by)[[*LESIONS]].any()
    if not 1 <= n <= len(units):
        raise ValueError(
            f"labels of {n} {by}s cannot be kept: training has {len(units)} {by}s with one label "
            f"for every pixel; give "
            f"1 to {len(units)}"
        )
    units = units.loc[_shuffled(units.index, seed)]
    first = [unit for lesion in LESIONS for unit in units.index[units[lesion]][:1]]
    kept = list(dict.fromkeys([*first, *units.index]))[:n]
    return manifest["labelled"] & (~counted | manifest[by].isin(kept))


def write_split(path: str | Path, manifest: pd.DataFrame, parts: pd.Series) -> None:
    """Write which slice is in which part as CSV: ``slice``, ``patient``, ``part``.

    Raises:
        FileNotFoundError: the file's directory does not exist.
        ValueError: the manifest is unfit, or ``parts`` is not of it.
    """
    _check(manifest, parts)
    table = manifest[["slice", "patient"]].assign(part=parts)
    write_atomically(Path(path), table.to_csv(index=False, lineterminator="\n"))


def read_split(path: str | Path, manifest: pd.DataFrame) -> pd.Series:
    """Read what :func:`write_split` wrote for the same slices and patients, in any order.

    Returns:
        One of :data:`PARTS` for each row of the manifest.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the manifest is unfit; the file is no split, puts a patient into two parts, or
            was made for another manifest. The message says what differs.
    """
    _check(manifest)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; write a split there first")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' errors and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}: not a readable table; split again ({error})") from error
    if list(table) != ["slice", "patient", "part"] or table["slice"].duplicated().any():
        raise ValueError(
            f"{path}: not a split: that has the columns slice, patient and part and a row for "
            "each slice; split again"
        )
    if not table["part"].isin(PARTS).all():
        raise ValueError(f"{path}: a part is not one of {', '.join(PARTS)}; split again")
    written = table.set_index("slice")
    _compare(path, written["patient"], manifest.set_index("slice")["patient"])
    sides = written.groupby("patient")["part"].nunique()
    if (sides > 1).any():
        raise ValueError(f"{path}: {_some(sides.index[sides > 1])} in two parts; split again")
    return manifest["slice"].map(written["part"]).rename("part")


def _compare(path: Path, written: pd.Series, given: pd.Series) -> None:
    """Raise ValueError unless both name the same slices and their patients."""
    both = written.index.intersection(given.index)
    differences = {
        "not in the manifest": written.index.difference(given.index),
        "not in the split": given.index.difference(written.index),
        "of another patient": both[(written[both] != given[both]).to_numpy()],
    }
    found = [f"{_some(slices)} {what}" for what, slices in differences.items() if len(slices)]
    if found:
        raise ValueError(
            f"{path}: made for another manifest: {'; '.join(found)}; split again or take the "
            "manifest it was made for"
        )


def _check(manifest: pd.DataFrame, parts: pd.Series | None = None) -> None:
    """Raise ValueError unless the manifest is as this module's head says, and the parts are its."""
    flags = ["labelled", "complete", *LESIONS]
    missing = [column for column in ("slice", "patient", *flags) if column not in manifest]
    if missing:
        raise ValueError(f"the manifest has no column {' nor '.join(missing)}; write it anew")
    for column in ("slice", "patient"):
        if not manifest[column].map(lambda name: isinstance(name, str) and name != "").all():
            raise ValueError(f"a {column} of the manifest is empty or not text; name it")
    for column in flags:
        if manifest[column].dtype != bool:
            raise ValueError(f"the manifest's column {column} must be of booleans")
    repeated = manifest["slice"][manifest["slice"].duplicated()]
    if len(repeated):
        raise ValueError(f"the manifest lists {_some(repeated)} twice; leave one out")
    if parts is not None and not (parts.index.equals(manifest.index) and parts.isin(PARTS).all()):
        raise ValueError("parts must be what assign gives for this very manifest")


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The names in an order that only they and the seed decide, not a library's version."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def _some(names: Iterable[str], most: int = 3) -> str:
    """The first of the names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
