"""Train and test the models of a benchmark, and append their scores to its tables."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.leakage import copied
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.benchmark.cells import Cell, cells_of, parts_of
from pyro_stitchnet.evaluation.benchmark.columns import line_names
from pyro_stitchnet.evaluation.benchmark.consistency import (
    check_precision,
    check_same_scores,
    check_slices,
    check_specification,
    check_splits,
    slices_digest,
)
from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.evaluation.benchmark.results import CELL, TABLE, Results
from pyro_stitchnet.evaluation.benchmark.spec import Spec
from pyro_stitchnet.evaluation.benchmark.testing import generative_columns, predict_and_score
from pyro_stitchnet.presets import OptimiserConfig
from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.runtime.locks import only_run
from pyro_stitchnet.runtime.precision import resolved
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.fit import fit
from pyro_stitchnet.training.learner import Learner

__all__ = ["check_options", "join", "run", "train_candidate"]


def run(
    spec: Spec,
    out: Path,
    only: Sequence[str] = (),
    labels: Sequence[int] = (),
    seeds: Sequence[int] = (),
) -> Results:
    """Train and test every model that the table does not contain yet.

    Args:
        spec: the benchmark.
        out: folder of the results.
        only: names of the entries to train; all by default.
        labels: numbers of labelled slices to train with, -1 for the budget of all; all budgets by
            default.
        seeds: of the models to train; all by default.

    Returns:
        All results, old and new.

    Raises:
        BlockingIOError: another run is writing to ``out``.
        ValueError: a value of ``only``, ``labels`` or ``seeds`` is not in the specification, a
            method does not have an option, a dataset is too small for a budget, lacks unlabelled
            slices or is split in another way than the benchmark's, or the table in ``out`` is
            damaged or has rows of another specification, precision or of other slices.
    """
    if unknown := [name for name in only if name not in spec.entries]:
        raise ValueError(f"no entry {unknown[0]!r}; there are {', '.join(spec.entries)}")
    budgets = [budget.key for budget in spec.budgets]
    if missing := [number for number in labels if number not in budgets]:
        raise ValueError(f"no budget of {missing[0]} labelled slices; there are {budgets}")
    for name in only or spec.entries:
        check_options(spec, name)
    cells = [
        cell
        for cell in cells_of(spec)
        if (not only or cell.name in only)
        and (not labels or cell.budget.key in labels)
        and (not seeds or cell.seed in seeds)
    ]
    if missing := [seed for seed in seeds if seed not in {cell.seed for cell in cells}]:
        raise ValueError(f"no entry to train has the seed {missing[0]}")
    datasets = {path: Dataset(path) for path in {spec.data_of(cell.entry) for cell in cells}}
    for cell in cells:  # before the first one is trained
        _check_parts(spec, cell, datasets[spec.data_of(cell.entry)])
    check_splits(spec, cells, datasets)
    other_hospital = None if spec.other_hospital is None else Dataset(spec.other_hospital)
    with only_run(out):
        return _run(spec, Results(out), cells, datasets, other_hospital)


def join(spec: Spec, out: Path, folders: Sequence[Path]) -> None:
    """Add the results of other folders, such as those of other machines, to a folder.

    Args:
        spec: the benchmark that made all results.
        out: folder that gets the results that it lacks.
        folders: of the other results.

    Raises:
        BlockingIOError: another run is writing to ``out``.
        FileNotFoundError: a folder has no results.
        ValueError: a table is damaged, or has rows of another specification, precision, of other
            slices or of a model that the specification lacks; or two folders have different results
            of a model.
    """
    cells = list(cells_of(spec))
    others = [Results(folder) for folder in folders]
    for other in others:
        if not len(other.rows):
            raise FileNotFoundError(f"{other.folder}: no {TABLE} with results to join")
        check_specification(spec, other)
        known = {tuple(cell.key.values()) for cell in cells}
        rows = other.rows[list(CELL)].itertuples(index=False, name=None)
        if unknown := set(rows) - known:
            name, labels, *_, seed = min(unknown)
            raise ValueError(
                f"{other.folder}: the specification has no entry {name!r} with {labels} labels "
                f"and seed {seed}"
            )
    with only_run(out):
        results = Results(out)
        check_specification(spec, results)
        every = [results, *others]
        for path in {spec.data_of(cell.entry) for cell in cells}:
            check_slices(path, every)
        check_precision(every)
        check_same_scores(every)
        for other, cell in product(others, cells):
            if other.has(cell.key) and not results.has(cell.key):
                results.add(*other.of(cell.key))


def _run(
    spec: Spec,
    results: Results,
    cells: Sequence[Cell],
    datasets: Mapping[Path, Dataset],
    other_hospital: Dataset | None,
) -> Results:
    check_specification(spec, results)
    digests = {path: slices_digest(each, other_hospital) for path, each in datasets.items()}
    for path, digest in digests.items():
        check_slices(path, [results], [digest])
    _note_missing_lines(spec, results, cells)
    check_precision([results], [resolved(spec.precision, choose_device(spec.device))])
    unseen, trained_on = None, set[Path]()  # datasets with slices of the other hospital
    if other_hospital is not None:
        unseen, manifest = other_hospital.load(), other_hospital.manifest
        hashes = {path: "".join(one.manifest["hash"]) for path, one in datasets.items()}
        trained_on = {path for path, of in hashes.items() if copied(manifest["hash"], of).any()}
    for number, cell in enumerate(cells, 1):
        if results.has(cell.key):
            continue
        key = ", ".join(f"{column} {value}" for column, value in cell.key.items())
        print(f"{number} of {len(cells)}: {key}", flush=True)
        path = spec.data_of(cell.entry)
        rows, scores = _train_and_test(
            spec, cell, datasets[path], None if path in trained_on else unseen
        )
        rows = [{**row, "data_digest": digests[path]} for row in rows]
        results.add(rows, scores)
        for row in rows:
            print(
                f"  {row['variant'] or 'default'}: GGO {row['dice_ggo']:.3f}, consolidation "
                f"{row['dice_con']:.3f}, {row['seconds_training']:.0f} s",
                flush=True,
            )
    return results


def _note_missing_lines(spec: Spec, results: Results, cells: Sequence[Cell]) -> None:
    """Print a note on models whose rows lack a read-out or a decision that is tested now."""
    missing = []
    for cell in cells:
        rows = pd.DataFrame(results.of(cell.key)[0])
        if len(rows) and set(spec.lines(cell.name)) - set(line_names(rows)):
            missing.append(f"{cell.name!r} with {cell.budget.key} labels, seed {cell.seed}")
    if missing:
        print(
            f"note: {results.folder}: models that lack a read-out or decision of today: "
            f"{len(missing)}, first {missing[0]}; choose another folder to test them again (a "
            "split of lesions needs both lesions in the labelled slices)",
            file=sys.stderr,
        )


def check_options(spec: Spec, name: str) -> None:
    """Refuse options that an entry's method does not have, without memory or random numbers.

    Raises:
        ValueError: an option is unknown or out of range, or the method would spend all steps on
            labels alone; the message names the entry.
    """
    entry = spec.entries[name]
    for options in entry.candidates():
        try:
            if "learning_rate" in options:
                OptimiserConfig(learning_rate=options.pop("learning_rate"))
            with torch.device("meta"):
                learner = METHODS[entry.method].build(None, **options)
            first = getattr(learner, "pretraining_steps", 0)
            if entry.uses_unlabelled and spec.steps_of(entry) <= first:
                raise ValueError(
                    f"the first {first} steps learn from labels alone; give more steps than that, "
                    "or fewer pretraining_steps"
                )
        except (TypeError, ValueError) as error:
            # Python's message of an unknown option begins with the name of a class.
            _, _, unknown = str(error).partition("got an unexpected keyword argument ")
            reason = f"{entry.method} has no option {unknown}" if unknown else error
            raise ValueError(f"entries.{name}: {reason}") from None


def _check_parts(spec: Spec, cell: Cell, dataset: Dataset) -> None:
    """Refuse a dataset that is too small for a budget, or lacks slices that the method needs.

    StitchNets learn from labelled slices alone, too, unless they are self-trained.
    """
    parts, entry = parts_of(dataset, cell), cell.entry
    found = len(parts["unlabelled"]) > 0
    used = found and entry.uses_unlabelled
    if entry.method.startswith("stitchnet-"):
        self_trained = any(options.get("consistency_weight") for options in entry.candidates())
        lacks = self_trained and not used and all(parts["labelled"].complete)
    else:
        lacks = entry.uses_unlabelled and not used
    if lacks or (entry.pretrain_steps and not found):
        raise ValueError(
            f"entries.{cell.name}: with {cell.budget.key} labels and seed {cell.seed}, "
            f"{dataset.folder} has no unlabelled slice for training; add some, or leave out the "
            "budget or the entry"
        )


def _train_and_test(
    spec: Spec, cell: Cell, dataset: Dataset, other_hospital: Slices | None
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Return the rows and the scores of one cell."""
    slices = {part: chosen.load() for part, chosen in parts_of(dataset, cell).items()}
    begun = time.monotonic()
    learner, validation_dice, tried = _best_candidate(spec, cell, slices)
    seconds = (time.monotonic() - begun) / len(tried)
    test, device = slices["test"], next(learner.parameters()).device
    columns = {
        **cell.key,
        "method": cell.entry.method,
        "data": str(spec.data_of(cell.entry)),
        "spec_digest": spec.digest(cell.entry, cell.budget),
        "unlabelled": cell.entry.uses_unlabelled and len(slices["unlabelled"]) > 0,
        "steps": spec.steps_of(cell.entry),
        "pretrain_steps": cell.entry.pretrain_steps,
        "random_start": cell.entry.random_start,
        "precision": resolved(spec.precision, device),
        "slices_test": len(test),
        "slices_test_of": int(dataset.manifest["patient"].isin(set(test.patients)).sum()),
        "validation_dice": validation_dice,
        "tried": json.dumps(tried),
        "seconds_training": seconds,
        **generative_columns(learner, test, spec.read_out),
        **provenance(),
    }
    tested = predict_and_score(learner, slices, other_hospital, spec, cell.entry)
    rows = [{**columns, **row} for row, _ in tested]
    return rows, pd.concat([scores.assign(**cell.key) for _, scores in tested], ignore_index=True)


def _best_candidate(
    spec: Spec, cell: Cell, slices: Mapping[str, Slices]
) -> tuple[Learner, float, dict[str, float]]:
    """Train every candidate; return the best on validation, its Dice, and the Dice of each."""
    tried: dict[str, float] = {}
    best: tuple[float, Learner] | None = None
    for options in cell.entry.candidates():
        learner, dice = train_candidate(spec, cell, slices, options)
        tried[json.dumps(options)] = dice
        if best is None or dice > best[0]:
            best = dice, learner
    assert best is not None
    return best[1], best[0], tried


def train_candidate(
    spec: Spec, cell: Cell, slices: Mapping[str, Slices], options: Mapping[str, Any]
) -> tuple[Learner, float]:
    """Train a method with one choice of its options.

    Args:
        spec: steps, batches, optimiser.
        cell: method and seed.
        slices: "labelled", "unlabelled" and "validation"; others are not used.
        options: of the method; ``learning_rate`` is the optimiser's.

    Returns:
        The learner with its best weights, and their Dice on validation (NaN without validation).
    """
    method, options = METHODS[cell.entry.method], dict(options)
    optimiser = replace(spec.optimiser, **method.optimiser)
    if "learning_rate" in options:
        optimiser = replace(optimiser, learning_rate=options.pop("learning_rate"))
    steps = spec.steps_of(cell.entry)
    torch.manual_seed(cell.seed)
    learner = method.build(None if cell.entry.random_start else spec.weights, **options)
    config = TrainConfig(
        data=spec.data_of(cell.entry),
        out=Path(),
        optimiser=optimiser,
        steps=steps,
        labelled_per_batch=spec.labelled_per_batch,
        unlabelled_per_batch=spec.unlabelled_per_batch if cell.entry.uses_unlabelled else 0,
        affine=spec.affine,
        paste=spec.paste,
        seed=cell.seed,
        validate_every=spec.validate_every,
        log_every=steps,
        device=spec.device,
        precision=spec.precision,
    )
    validation = slices["validation"] if cell.budget.validation else None
    if cell.entry.pretrain_steps:
        assert method.pretrain is not None
        first = replace(
            config,
            steps=cell.entry.pretrain_steps,
            unlabelled_per_batch=spec.unlabelled_per_batch,
        )
        method.pretrain(learner, slices, first)
    state = fit(learner, slices, config, validation=validation)
    dice = [row["validation/dice"] for row in state.rows if "validation/dice" in row]
    return learner, max(dice, default=math.nan)
