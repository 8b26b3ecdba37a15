"""Training, validation and test parts that share no patient, and budgets of labels.

A *manifest* is a table with a row for each slice and at least these columns: ``slice``, its unique
name; ``patient``; and the booleans ``labelled``, ``complete`` (its rule separates all labels, and
every pixel is labelled), ``has_ggo`` and ``has_consolidation``.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.text import csv_text

__all__ = ["PARTS", "assign", "keep_labels", "write_split"]

PARTS = ("train", "validation", "test")
"""The parts of a split."""

LESION_COLUMNS = ("has_ggo", "has_consolidation")


def assign(
    manifest: pd.DataFrame,
    *,
    fold: int = 0,
    folds: int = 5,
    seed: int = 0,
    validation: bool = True,
) -> pd.Series:
    """Assign patients to training, validation and test.

    Patients with a complete slice are distributed over ``folds``: fold number ``fold`` is for test,
    the next for validation, the others for training. With 5 folds that is the article's
    60 / 20 / 20 % of the patients, and over all values of ``fold`` every patient is tested once.
    Patients without a complete slice are for training, and with 0 folds all patients are. A
    patient's slices stay together.

    Folds are stratified: the numbers of patients in two folds differ by at most 1, and so do the
    numbers of patients with GGO and of patients with consolidation. The order of the rows has no
    effect.

    Args:
        manifest: see the top of this module.
        fold: the test fold, 0 to ``folds`` - 1.
        folds: number of folds: 0, or from 3 (2 without validation) to the number of patients with
            a complete slice.
        seed: of the shuffling of patients.
        validation: whether there is a validation fold; without it, that fold is for training.

    Returns:
        One of :data:`PARTS` for each row.

    Raises:
        ValueError: the manifest is malformed, or ``fold`` or ``folds`` is out of range.
    """
    _check(manifest)
    if folds == 0:
        return pd.Series("train", index=manifest.index, name="part")
    patients = manifest.groupby("patient")[["complete", *LESION_COLUMNS]].any()
    patients = patients[patients["complete"]]
    if not manifest["labelled"].any():
        raise ValueError("no slice is labelled, so there is nothing to test on; label some")
    needed = ["training", "validation", "test"] if validation else ["training", "test"]
    if len(patients) < len(needed):
        raise ValueError(
            f"patients with a slice whose every pixel has one label: {len(patients)}, but "
            f"{' and '.join(needed)} need one each; label all four tissues in slices of more "
            "patients"
        )
    if not len(needed) <= folds <= len(patients):
        raise ValueError(
            f"folds must be between {len(needed)} and the number of patients with a slice whose "
            f"every pixel has one label, {len(patients)}, got {folds}"
        )
    if not 0 <= fold < folds:
        raise ValueError(f"fold must be between 0 and {folds - 1}, got {fold}")
    patients = patients.loc[_shuffled(patients.index, seed)]
    ggo, consolidation = patients["has_ggo"], patients["has_consolidation"]
    # In this order patients with GGO are neighbours, and so are patients with consolidation: so
    # assigning them to the folds in turn spreads both evenly.
    kinds = [ggo & ~consolidation, ggo & consolidation, consolidation]
    order = np.argsort(np.select(kinds, range(3), 3), kind="stable")
    dealt = pd.Series(np.arange(len(order)) % folds, index=patients.index[order])
    turn = (manifest["patient"].map(dealt) - fold) % folds  # NaN without a complete slice
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
    seed: int = 0,
) -> pd.Series:
    """Choose the ``n`` slices of the training part that keep their labels.

    With one seed, a budget includes all smaller budgets, so that curves over budgets are paired.
    The first two have GGO and consolidation, if training has them; the others are in random order.
    Only slices with one label for every pixel count; partially labelled slices keep their labels.

    Args:
        manifest: see the top of this module.
        parts: of its slices, from :func:`assign`.
        n: at least 1 and at most the number in training.
        seed: of the order.

    Returns:
        The column ``labelled`` under the budget; validation and test keep their labels.

    Raises:
        ValueError: the manifest is malformed, ``parts`` does not belong to it, or ``n`` is out of
            range.
    """
    _check(manifest, parts)
    training = parts == "train"
    counted = training & manifest["complete"]
    slices = manifest[counted].set_index("slice")[[*LESION_COLUMNS]]
    if not 1 <= n <= len(slices):
        raise ValueError(
            f"labels of {n} slices cannot be kept: training has {len(slices)} slices with one "
            f"label for every pixel; give 1 to {len(slices)}"
        )
    slices = slices.loc[_shuffled(slices.index, seed)]
    first = [name for lesion in LESION_COLUMNS for name in slices.index[slices[lesion]][:1]]
    kept = list(dict.fromkeys([*first, *slices.index]))[:n]
    return manifest["labelled"] & (~counted | manifest["slice"].isin(kept))


def write_split(path: str | Path, manifest: pd.DataFrame, parts: pd.Series) -> None:
    """Write the part of each slice as CSV: ``slice``, ``patient``, ``part``.

    Raises:
        FileNotFoundError: the file's directory does not exist.
        ValueError: the manifest is malformed, or ``parts`` does not belong to it.
    """
    _check(manifest, parts)
    table = manifest[["slice", "patient"]].assign(part=parts)
    write_atomically(Path(path), csv_text(table))


def _check(manifest: pd.DataFrame, parts: pd.Series | None = None) -> None:
    """Raise ValueError if the manifest is malformed, or the parts do not belong to it."""
    flags = ["labelled", "complete", *LESION_COLUMNS]
    missing = [column for column in ("slice", "patient", *flags) if column not in manifest]
    if missing:
        raise ValueError(f"the manifest has no column {' nor '.join(missing)}; add it")
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
        raise ValueError("parts must be those that assign returns for this manifest")


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Return the names in an order that depends on them and the seed, not on library versions."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def _some(names: Iterable[str], most: int = 3) -> str:
    """Return the first names and the number of the others, for a message."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
