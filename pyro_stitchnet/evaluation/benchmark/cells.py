"""The models that a benchmark trains: entries, label budgets and splits."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.partition import partition
from pyro_stitchnet.evaluation.benchmark.results import CELL
from pyro_stitchnet.evaluation.benchmark.spec import Budget, Entry, Spec

__all__ = ["Cell", "cells_of", "parts_of"]


@dataclass(frozen=True)
class Cell:
    """An entry with a label budget on one split."""

    name: str
    entry: Entry
    budget: Budget
    fold: int
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """The values of :data:`~pyro_stitchnet.evaluation.benchmark.results.CELL`."""
        values = (self.name, self.budget.key, self.budget.folds, self.fold, self.seed)
        return dict(zip(CELL, values, strict=True))


def cells_of(spec: Spec) -> Iterator[Cell]:
    """Yield all methods on one split before the next split, so that early tables compare them."""
    own = (seed for entry in spec.entries.values() for seed in entry.seeds or ())
    for seed, budget in product(dict.fromkeys([*spec.seeds, *own]), spec.budgets):
        for fold in range(budget.tested or budget.folds):
            for name, entry in spec.entries.items():
                if seed in (spec.seeds if entry.seeds is None else entry.seeds):
                    yield Cell(name, entry, budget, fold, seed)


def parts_of(dataset: Dataset, cell: Cell) -> dict[str, Dataset]:
    """Return the slices of each part of a cell's split.

    Raises:
        ValueError: the dataset has too few patients or labels for the budget.
    """
    budget = cell.budget
    try:
        return partition(
            dataset,
            fold=cell.fold,
            folds=budget.folds,
            seed=cell.seed,
            label_budget=budget.labels,
            validation=budget.validation,
        )[1]
    except ValueError as error:
        raise ValueError(f"the budget of {budget.key} labels, seed {cell.seed}: {error}") from None
