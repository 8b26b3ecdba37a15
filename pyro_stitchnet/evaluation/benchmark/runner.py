"""Train and test every cell of a benchmark, and append what it scored to its tables."""

import json
import math
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.partition import cut
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.baselines.base import Reading, Supervised
from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.evaluation.benchmark.spec import Budget, Entry, Spec
from pyro_stitchnet.evaluation.metrics.calibration import calibration
from pyro_stitchnet.evaluation.metrics.distances import hausdorff95
from pyro_stitchnet.evaluation.metrics.scores import INFECTION, slice_scores
from pyro_stitchnet.evaluation.style_figures import style_figures
from pyro_stitchnet.posterior import predict, seeded, segment
from pyro_stitchnet.posterior.decision import decide
from pyro_stitchnet.posterior.views import averaged
from pyro_stitchnet.runtime.devices import make_fabric
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training.learner import ElboLearner, Learner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State

__all__ = ["CELL", "Tables", "run"]

CELL = ("name", "labels", "folds", "fold", "seed")
"""The columns that tell a cell of the benchmark."""

TEXT = ("name", "reading", "method", "data", "patient", "commit", "python")
"""Columns that may look like numbers: a commit such as 5090819 or 12e4567, Python 3.12."""

SAMPLES = 4  # draws of z to average over where a StitchNet is tested


@dataclass(frozen=True)
class Cell:
    """One method on one split."""

    name: str
    entry: Entry
    budget: Budget
    fold: int
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """What tells it, in the tables."""
        labels = -1 if self.budget.labels is None else self.budget.labels
        return dict(
            zip(CELL, (self.name, labels, self.budget.folds, self.fold, self.seed), strict=True)
        )


class Tables:
    """The results so far: ``table.csv``, a row a trained model and reading, and ``scores.csv``.

    A cell's scores are written before its row; scores without a row are of a run that was stopped,
    and are left out.
    """

    def __init__(self, folder: Path) -> None:
        """Read what is there.

        Raises:
            FileNotFoundError: there are rows and no scores.
        """
        self.folder = folder
        self.rows, self.scores = (self._read(name) for name in ("table.csv", "scores.csv"))
        if len(self.rows):
            if not len(self.scores):
                raise FileNotFoundError(
                    f"{folder}/scores.csv: not there beside table.csv; restore it, or take another "
                    "--out"
                )
            done = self.rows[list(CELL)].drop_duplicates()
            self.scores = self.scores.merge(done, on=list(CELL))

    def has(self, key: Mapping[str, Any]) -> bool:
        """Whether a cell is done."""
        if not len(self.rows):
            return False
        return bool((self.rows[list(CELL)] == pd.Series(key)[list(CELL)]).all(axis=1).any())

    def add(self, rows: list[dict[str, Any]], scores: pd.DataFrame) -> None:
        """Append a cell's rows and scores."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.scores = pd.concat([self.scores, scores], ignore_index=True)
        self.rows = pd.concat([self.rows, pd.DataFrame(rows)], ignore_index=True)
        write_atomically(self.folder / "scores.csv", self.scores.to_csv(index=False))
        write_atomically(self.folder / "table.csv", self.rows.to_csv(index=False))

    def _read(self, name: str) -> pd.DataFrame:
        path = self.folder / name
        if not path.exists():
            return pd.DataFrame()
        text = dict.fromkeys(TEXT, str)
        # a patient may be called NA
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        return table.fillna({"reading": ""})  # the plain prediction's name


def run(spec: Spec, out: Path, only: Sequence[str] = ()) -> Tables:
    """Train and test what the tables do not have yet, one cell after another.

    Args:
        spec: what to compare.
        out: folder of the tables.
        only: the entries to train now; all by default.

    Returns:
        The tables, whole.

    Raises:
        FileNotFoundError: a dataset, or the weights to start from, are not there.
        ValueError: a dataset cannot be split so, an entry is unknown, or its method cannot take an
            option.
    """
    if unknown := [name for name in only if name not in spec.entries]:
        raise ValueError(f"no entry {unknown[0]!r}; there are {', '.join(spec.entries)}")
    for name in only or spec.entries:
        _check_options(name, spec.entries[name])
    dataset = Dataset(spec.data)
    elsewhere = None if spec.elsewhere is None else Dataset(spec.elsewhere).load()
    tables = Tables(out)
    wanted = [cell for cell in _cells(spec) if not only or cell.name in only]
    for number, cell in enumerate(wanted, 1):
        if tables.has(cell.key):
            continue
        said = ", ".join(f"{key} {value}" for key, value in cell.key.items())
        print(f"{number} of {len(wanted)}: {said}", flush=True)
        rows, scores = _tested(spec, cell, dataset, elsewhere)
        tables.add(rows, scores)
        for row in rows:
            print(
                f"  {row['reading'] or 'prediction'}: GGO {row['dice_ggo']:.3f}, consolidation "
                f"{row['dice_con']:.3f}, {row['seconds_training']:.0f} s",
                flush=True,
            )
    return tables


def _check_options(name: str, entry: Entry) -> None:
    """Refuse what a method cannot take, before anything is trained."""
    for options in entry.candidates():
        options.pop("learning_rate", None)  # the optimiser's
        try:
            with torch.device("meta"):  # without memory or numbers
                METHODS[entry.method].build(None, **options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"entries.{name}: {error}") from None


def _cells(spec: Spec) -> Iterator[Cell]:
    """All methods of one split before the next split, so that early tables compare them."""
    for seed, budget in product(spec.seeds, spec.budgets):
        for fold in range(budget.tested or budget.folds):
            for name, entry in spec.entries.items():
                yield Cell(name, entry, budget, fold, seed)


def _tested(
    spec: Spec, cell: Cell, dataset: Dataset, elsewhere: Slices | None
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """A cell's rows and scores."""
    _, parts = cut(
        dataset,
        fold=cell.fold,
        folds=cell.budget.folds,
        seed=cell.seed,
        label_budget=cell.budget.labels,
        validation=cell.budget.validation,
    )
    slices = {part: chosen.load() for part, chosen in parts.items()}
    begun, tried = time.monotonic(), {}
    best: tuple[float, Learner] | None = None
    for options in cell.entry.candidates():
        learner, score = fit(spec, cell, slices, options)
        tried[json.dumps(options)] = score
        if best is None or score > best[0]:
            best = score, learner
    assert best is not None
    seconds = time.monotonic() - begun
    learner, device = best[1], next(best[1].parameters()).device
    styles: dict[str, float] = {}
    if isinstance(learner, ElboLearner):
        with seeded(0, device):
            styles = style_figures(learner.net, slices["test"], samples=SAMPLES)
    rows, scores = [], []
    told = slices["test"]
    for reading, answer in _readings(learner, slices["labelled"]).items():
        begun = time.monotonic()
        p = _answered(answer, told.images, device, spec.views)
        predicting = (time.monotonic() - begun) / len(p)
        other = None
        if elsewhere is not None:
            other = _answered(answer, elsewhere.images, device, spec.views)
        for decision in spec.decisions:
            how = "" if decision == "likeliest" else decision
            found = _scores(decide(p, decision), told)
            means = found.groupby("lesion")["f1"].mean()
            row = {
                **cell.key,
                "reading": ", ".join(filter(None, (reading, how))),
                "method": cell.entry.method,
                "data": str(spec.data),
                "unlabelled": _uses_unlabelled(cell.entry),
                "slices_test": len(p),
                "dice_ggo": means["GGO"],
                "dice_con": means["CON"],
                **calibration(p, told.labels()),
                "validation_dice": best[0],
                "tried": json.dumps(tried),
                "seconds_training": seconds / len(tried),
                "seconds_a_slice": predicting,
                "peak_gb": _peak_memory(device),
                **styles,
                **provenance(),
            }
            found["set"] = "test"
            if other is not None and elsewhere is not None:
                infection = _infection_scores(decide(other, decision), elsewhere)
                row["infection_elsewhere"] = infection["f1"].mean()
                found = pd.concat([found, infection.assign(set="elsewhere")], ignore_index=True)
            rows.append(row)
            scores.append(found.assign(**cell.key, reading=row["reading"]))
    return rows, pd.concat(scores, ignore_index=True)


def fit(
    spec: Spec, cell: Cell, slices: Mapping[str, Slices], options: Mapping[str, Any]
) -> tuple[Learner, float]:
    """Train one candidate; its best weights and their Dice on the validation fold, if any.

    Args:
        spec: steps, batches, optimiser.
        cell: method and seed.
        slices: "labelled", "unlabelled" and "validation"; nothing else is looked at.
        options: of the method; ``learning_rate`` is the optimiser's.
    """
    method, options = METHODS[cell.entry.method], dict(options)
    optimiser = replace(spec.optimiser, **method.optimiser)
    if "learning_rate" in options:
        optimiser = replace(optimiser, learning_rate=options.pop("learning_rate"))
    torch.manual_seed(cell.seed)
    learner = method.build(spec.weights, **options)
    learner.begin(slices["labelled"])
    fabric = make_fabric(spec.device, precision=spec.precision)
    learner.to(fabric.device)
    mute = spec.unlabelled_per_batch if _uses_unlabelled(cell.entry) else 0
    streams = TwoStreams(
        slices["labelled"],
        slices["unlabelled"],
        (spec.labelled_per_batch, mute),
        seed=cell.seed,
        affine=spec.affine,
        paste=spec.paste,
        strong_views=learner.strong_views,
        jitter=learner.jitter,
    )
    state = State(learner, optimiser, fabric)
    train(
        state,
        streams.batches(),
        spec.steps,
        validation=slices["validation"] if cell.budget.validation else None,
        log_every=spec.steps,
        validate_every=spec.validate_every,
    )
    scores = [row["validation/dice"] for row in state.rows if "validation/dice" in row]
    return learner, max(scores, default=math.nan)


def _uses_unlabelled(entry: Entry) -> bool:
    method = METHODS[entry.method]
    return method.unlabelled if entry.unlabelled is None else entry.unlabelled


def _readings(learner: Learner, labelled: Slices) -> Mapping[str, Reading]:
    if isinstance(learner, Supervised):
        return learner.readings(labelled)
    assert isinstance(learner, ElboLearner)
    net = learner.net

    def own(x: Tensor) -> Tensor:
        return predict(net, x, samples=SAMPLES)

    def posterior(x: Tensor) -> Tensor:
        return segment(net, x, samples=SAMPLES, read_out="posterior").probabilities

    return {"": own, "posterior": posterior}


def _answered(answer: Reading, images: Tensor, device: torch.device, views: int) -> Tensor:
    with seeded(0, device):
        return averaged(answer, images.to(device), views).cpu()


def _scores(labels: Tensor, slices: Slices) -> pd.DataFrame:
    """Scores of every slice and lesion, with the distance of the outlines."""
    truth = slices.labels()
    scores = slice_scores(truth, labels, slices.names, slices.patients)
    for lesion, distances in hausdorff95(truth, labels).items():
        scores.loc[scores["lesion"] == lesion, "hd95"] = distances
    return scores


def _infection_scores(labels: Tensor, slices: Slices) -> pd.DataFrame:
    """Dice of GGO and consolidation together, where the masks do not tell them apart."""
    truth = slices.infection()
    return slice_scores(truth, labels, slices.names, slices.patients, groups=[INFECTION])


def _peak_memory(device: torch.device) -> float:
    """GB at most so far: of this process, or of what torch allocated on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
