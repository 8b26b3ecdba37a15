"""Training, validation and test slices that share no patient."""

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold

from pyro_stitchnet.data.slices import Slices

__all__ = ["Split", "split_by_patient"]


@dataclass(frozen=True)
class Split:
    """Three disjoint sets of slices, and of patients."""

    train: Slices
    validation: Slices
    test: Slices


def split_by_patient(slices: Slices, *, fold: int = 0, folds: int = 5, seed: int = 0) -> Split:
    """Split into ``folds`` by patient: one fold tests, the next validates, the others train.

    With 5 folds that is the article's 60 / 20 / 20 %; over all ``fold`` every patient is tested
    once.

    Args:
        slices: what to split.
        fold: the fold to test on, 0 to ``folds`` - 1.
        folds: how many folds, at least 3 and at most as many as there are patients.
        seed: shuffles the patients.

    Raises:
        ValueError: ``fold`` or ``folds`` is out of range.
    """
    patients = len(set(slices.patients))
    if not 3 <= folds <= patients:
        raise ValueError(f"folds must be between 3 and the number of patients, {patients}: {folds}")
    if not 0 <= fold < folds:
        raise ValueError(f"fold must be between 0 and {folds - 1}, got {fold}")
    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    held_out = [
        test for _, test in splitter.split(np.zeros(len(slices)), groups=list(slices.patients))
    ]
    test, validation = held_out[fold], held_out[(fold + 1) % folds]
    train = np.setdiff1d(np.arange(len(slices)), np.concatenate([test, validation]))
    return Split(slices.take(train), slices.take(validation), slices.take(test))
