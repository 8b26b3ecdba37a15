"""A prepared dataset, split into slices for training, validation and test."""

import numpy as np
import pandas as pd

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.leakage import check
from pyro_stitchnet.data.datasets.splits import assign, keep_labels

__all__ = ["partition"]


def partition(
    dataset: Dataset,
    *,
    fold: int,
    folds: int,
    seed: int,
    label_budget: int | None = None,
    validation: bool = True,
    labels: bool = True,
) -> tuple[pd.Series, dict[str, Dataset]]:
    """Split by patient, and remove the labels beyond a budget.

    Args:
        dataset: as written by `stitchnet prepare`.
        fold: the test fold; the next fold is for validation.
        folds: number of folds; with 0 all patients are for training.
        seed: of the split and of the choice of slices that keep their labels.
        label_budget: how many training slices keep their labels; all by default.
        validation: whether there is a validation fold; without it, that fold is for training.
        labels: whether to use labels. Without them every patient can be in any fold, all training
            slices are unlabelled, and all slices of the other folds are for validation and test.

    Returns:
        The part of every slice, see :func:`~pyro_stitchnet.data.datasets.splits.assign`, and the
        slices of "labelled" and "unlabelled" (both for training), "validation" and "test".

    Raises:
        ValueError: the dataset is too small for the split, or the split leaks.
    """
    manifest = dataset.manifest
    if not labels:
        manifest = manifest.assign(labelled=True, complete=True)
    labelled = manifest["labelled"] & labels
    try:
        parts = assign(manifest, fold=fold, folds=folds, seed=seed, validation=validation)
        if label_budget is not None:
            labelled = keep_labels(manifest, parts, label_budget, seed=seed)
    except ValueError as error:
        raise ValueError(f"{dataset.folder}: {error}") from error
    check(manifest, parts)
    rows = {
        "labelled": (parts == "train") & labelled,
        "unlabelled": (parts == "train") & ~labelled,
        "validation": (parts == "validation") & manifest["complete"],
        "test": (parts == "test") & manifest["complete"],
    }
    return parts, {part: dataset.take(np.flatnonzero(chosen)) for part, chosen in rows.items()}
