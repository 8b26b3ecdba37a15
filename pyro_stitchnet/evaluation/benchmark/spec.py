"""What a benchmark compares, as data read from a YAML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.posterior.decision import Decision
from pyro_stitchnet.posterior.views import VIEWS
from pyro_stitchnet.presets import OptimiserConfig
from pyro_stitchnet.training.config import Precision, check_keys, read_mapping

__all__ = ["Budget", "Entry", "Spec", "read_spec"]

_STRICT = ConfigDict(extra="forbid")


def _optimiser() -> OptimiserConfig:
    return OptimiserConfig(learning_rate=1e-3, warmup=50, decay="cosine")


@dataclass(frozen=True)
class Entry:
    """A line of the comparison.

    Attributes:
        method: one of :data:`~pyro_stitchnet.evaluation.benchmark.methods.METHODS`.
        unlabelled: whether it is given unlabelled slices; by default if the method uses them.
        options: of the method; a list is of values to choose from on the validation fold.
    """

    __pydantic_config__ = _STRICT

    method: str
    unlabelled: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def candidates(self) -> list[dict[str, Any]]:
        """Every choice of one value for each option."""
        values = [v if isinstance(v, list) else [v] for v in self.options.values()]
        return [dict(zip(self.options, chosen, strict=True)) for chosen in product(*values)]


@dataclass(frozen=True)
class Budget:
    """How many training slices keep their labels, and in how many folds the patients are tested.

    Attributes:
        labels: slices with one label for every pixel; all where None.
        folds: into which the patients are dealt; each is tested once for every seed.
        tested: how many of them are, where not all.
        validation: whether another fold is held out to choose weights and options by; without, its
            patients train too, and the last weights are tested.
    """

    __pydantic_config__ = _STRICT

    labels: int | None
    folds: int = 5
    tested: int | None = None
    validation: bool = True

    def __post_init__(self) -> None:
        """Refuse folds that are not there."""
        if self.tested is not None and not 1 <= self.tested <= self.folds:
            raise ValueError(f"tested must be between 1 and {self.folds} folds, got {self.tested}")


@dataclass(frozen=True)
class Spec:
    """A benchmark.

    Attributes:
        data: a prepared dataset with labelled and unlabelled slices; split by patient.
        entries: what is compared, by the names of the tables' rows.
        budgets: of labels.
        elsewhere: a prepared dataset of another hospital whose infection every model is tested on.
        seeds: of the split, the labels kept, the start, the batches.
        weights: MobileNetV2's start for every method that has one.
        steps: optimiser steps of every method.
        labelled_per_batch: slices with labels in a batch.
        unlabelled_per_batch: slices without, for the methods that use them.
        affine: whether training slices are turned, scaled and sheared freely.
        paste: share of labelled slices that get another one's lesions.
        optimiser: of every method that does not say otherwise in its options.
        validate_every: steps between two validations, by which the weights to test are chosen.
        device: "auto" takes a GPU if there is one.
        precision: of the networks in training.
        views: flips and quarter turns over which every method's answers are averaged in the test.
        decisions: by each of which every method's probabilities become labels in the test, a line
            of the tables each.
    """

    __pydantic_config__ = _STRICT

    data: Path
    entries: Mapping[str, Entry]
    budgets: Sequence[Budget]
    elsewhere: Path | None = None
    seeds: Sequence[int] = (0,)
    weights: str | None = None
    steps: int = 800
    labelled_per_batch: int = 4
    unlabelled_per_batch: int = 4
    affine: bool = False
    paste: float = 0.5
    optimiser: OptimiserConfig = field(default_factory=_optimiser)
    validate_every: int = 100
    device: str = "auto"
    precision: Precision = "32"
    views: int = 1
    decisions: Sequence[Decision] = ("likeliest",)

    def __post_init__(self) -> None:
        """Refuse what no run could do."""
        for name, entry in self.entries.items():
            if entry.method not in METHODS:
                raise ValueError(
                    f"entries.{name}: method {entry.method!r} is unknown; choose one of "
                    f"{', '.join(METHODS)}"
                )
            if entry.unlabelled and not METHODS[entry.method].unlabelled:
                raise ValueError(
                    f"entries.{name}: {entry.method} has no use for unlabelled slices; leave out "
                    "`unlabelled`"
                )
            if len(entry.candidates()) > 1 and not all(b.validation for b in self.budgets):
                raise ValueError(
                    f"entries.{name}: options cannot be chosen where a budget has no validation; "
                    "give one value for each"
                )
        if not 1 <= self.views <= VIEWS:
            raise ValueError(f"views must be between 1 and {VIEWS}, got {self.views}")
        numbers = (self.steps, self.labelled_per_batch, self.unlabelled_per_batch)
        if min(*numbers, self.validate_every) < 1 or not self.entries or not self.budgets:
            raise ValueError("steps, slices a batch, entries and budgets must be at least 1")
        if not self.decisions:
            raise ValueError("decisions must name at least one")


def read_spec(path: Path) -> Spec:
    """Read a benchmark's specification.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or a key or value of it is wrong.
    """
    said = read_mapping(path)
    check_keys(said, {f.name: None for f in fields(Spec)}, path)
    try:
        return TypeAdapter(Spec).validate_python(said)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()
        )
        raise ValueError(f"{path}: {wrong}") from None
