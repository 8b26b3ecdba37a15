"""Refuse results that cannot be compared: of other specifications, slices, splits, precisions."""

import hashlib
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.evaluation.benchmark.cells import Cell, cells_of, parts_of
from pyro_stitchnet.evaluation.benchmark.results import CELL, Results
from pyro_stitchnet.evaluation.benchmark.spec import Spec

__all__ = [
    "check_precision",
    "check_same_scores",
    "check_slices",
    "check_specification",
    "check_splits",
    "rows_of_specification",
    "slices_digest",
]


def check_specification(spec: Spec, results: Results) -> None:
    """Refuse rows of another specification, also of models that are not trained now.

    Raises:
        ValueError: the message names the folder and the entry.
    """
    for (name, entry), budget in product(spec.entries.items(), spec.budgets):
        where = {"name": name, "labels": budget.key, "folds": budget.folds}
        if results.digests("spec_digest", **where) - {spec.digest(entry, budget)}:
            raise ValueError(
                f"{results.folder}: another specification made the rows of {name!r} "
                "(spec_digest); choose another folder"
            )


def rows_of_specification(spec: Spec, results: Results) -> pd.DataFrame:
    """Return the rows of the models in a specification, and print a note on others.

    A specification may have had more entries, budgets or seeds when the others were made.
    """
    rows = results.rows
    if not len(rows):
        return rows
    known = pd.MultiIndex.from_tuples([tuple(cell.key.values()) for cell in cells_of(spec)])
    own = pd.MultiIndex.from_frame(rows[list(CELL)]).isin(known)
    if not own.all():
        others = ", ".join(sorted(set(rows.loc[~own, "name"])))
        print(
            f"note: {(~own).sum()} rows of entries, budgets or seeds that the specification does "
            f"not have are left out ({others})",
            file=sys.stderr,
        )
    return rows[own]


def check_slices(data: Path, every: Sequence[Results], digests: Collection[str] = ()) -> None:
    """Refuse results that different slices made, of a dataset or of the other hospital."""
    found = set(digests).union(*(each.digests("data_digest", data=str(data)) for each in every))
    if len(found) > 1:
        raise ValueError(
            f"{', '.join(str(each.folder) for each in every)}: rows were made with other slices in "
            f"{data} or at the other hospital (data_digest), or by an earlier version; choose "
            "another folder"
        )


def check_precision(every: Sequence[Results], own: Collection[str] = ()) -> None:
    """Refuse results whose networks were trained in different precisions.

    Args:
        every: the results.
        own: the precision of models that are trained now.

    Raises:
        ValueError: the message names the folders.
    """
    found = set(own).union(
        *(set(r.rows["precision"].dropna()) for r in every if "precision" in r.rows)
    )
    if len(found) > 1:
        raise ValueError(
            f"{', '.join(str(each.folder) for each in every)}: the precision of the networks would "
            f"differ between rows ({', '.join(sorted(found))}); name one in the specification "
            "where `precision: auto` chooses another on this machine, or choose another folder"
        )


def check_same_scores(every: Sequence[Results]) -> None:
    """Refuse results that have one model twice, with different Dice.

    Raises:
        ValueError: the message names the model.
    """
    columns = [*CELL, "variant", "dice_by_patient"]
    tables = [each.rows.reindex(columns=columns) for each in every if len(each.rows)]
    rows = pd.concat(tables).drop_duplicates()
    again = rows[rows.duplicated([*CELL, "variant"])]
    if len(again):
        name, labels, _, fold, seed = next(again[list(CELL)].itertuples(index=False, name=None))
        raise ValueError(
            f"{', '.join(str(each.folder) for each in every)}: two results of {name!r} with "
            f"{labels} labels, fold {fold}, seed {seed} differ; leave out the folder of one"
        )


def check_splits(spec: Spec, cells: Sequence[Cell], datasets: Mapping[Path, Dataset]) -> None:
    """Refuse an entry whose own dataset is split differently, which would not be comparable.

    Args:
        spec: the benchmark.
        cells: the models.
        datasets: by path, those of all cells.

    Raises:
        ValueError: the tested or the labelled slices differ; the message names the entry.
    """
    cells = [cell for cell in cells if spec.data_of(cell.entry) != spec.data]
    if not cells:
        return
    usual = Dataset(spec.data)
    for cell in cells:
        own = datasets[spec.data_of(cell.entry)]
        one, other = (parts_of(dataset, cell) for dataset in (own, usual))
        for part in ("test", "labelled"):
            if _complete(one[part]) != _complete(other[part]):
                raise ValueError(
                    f"entries.{cell.name}: with seed {cell.seed} its data ({own.folder}) have "
                    f"other {part} slices than {usual.folder}; it needs the same slices with a "
                    "label for every pixel"
                )


def _complete(dataset: Dataset) -> set[tuple[str, str]]:
    """Return patient and name of the slices with a label for every pixel."""
    manifest = dataset.manifest
    return set(
        manifest.loc[manifest["complete"], ["patient", "slice"]].itertuples(index=False, name=None)
    )


def slices_digest(*datasets: Dataset | None) -> str:
    """Return 12 hexadecimal digits of the names, patients, pixels and labels of all slices."""
    manifests = [dataset.manifest for dataset in datasets if dataset is not None]
    columns = ["slice", "patient", "crc32"]
    text = "".join(table[columns].to_csv(index=False) for table in manifests)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
