"""A prepared dataset, cut into what a run trains, chooses and tests on."""

import numpy as np
import pandas as pd

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.leakage import check
from pyro_stitchnet.data.datasets.splits import assign, keep_labels

__all__ = ["cut"]


def cut(
    dataset: Dataset,
    *,
    fold: int,
    folds: int,
    seed: int,
    label_budget: int | None = None,
    validation: bool = True,
) -> tuple[pd.Series, dict[str, Dataset]]:
    """Split by patient, and take the labels beyond a budget away.

    Args:
        dataset: what `stitchnet prepare` wrote.
        fold: the fold of patients to test on; the next one validates.
        folds: how many folds; with 0 all patients train.
        seed: of the split and of which slices keep their labels.
        label_budget: how many training slices keep them; all by default.
        validation: whether a fold validates; without, it trains.

    Returns:
        The part of every slice, see :func:`~pyro_stitchnet.data.datasets.splits.assign`, and the slices of
        "labelled" and "unlabelled" (to train on), "validation" and "test".

    Raises:
        ValueError: the dataset cannot be split so, or the split leaks.
    """
    manifest = dataset.manifest
    labelled = manifest["labelled"]
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
