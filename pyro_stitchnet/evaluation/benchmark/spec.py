"""The specification of a benchmark, read from a YAML file."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from pyro_stitchnet.evaluation.benchmark.columns import line_name, variant_name
from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.posterior.options import Decision
from pyro_stitchnet.presets import OptimiserConfig, preset
from pyro_stitchnet.runtime.precision import Precision
from pyro_stitchnet.runtime.ranges import Count, CountOrZero, Few, Seed, Share, check_ranges
from pyro_stitchnet.runtime.settings import check_keys, read_mapping, validated

__all__ = ["Budget", "Entry", "Spec", "read_spec"]

_STRICT = ConfigDict(extra="forbid")
MOST_CANDIDATES = 1000  # of an entry
_OPTIMISER = OptimiserConfig(learning_rate=1e-3, warmup=50, decay="cosine")


@dataclass(frozen=True)
class Entry:
    """A method with its options: a line of the comparison.

    Attributes:
        method: a key of :data:`~pyro_stitchnet.evaluation.benchmark.methods.METHODS`.
        unlabelled: whether it is trained on unlabelled slices too; by default if the method uses
            them.
        random_start: whether MobileNetV2 starts with random weights, in place of the
            specification's.
        steps: in place of the benchmark's.
        pretrain_steps: steps on the unlabelled slices before the steps of every method: the SVAE of
            a StitchNet learns to generate them, a U-Net to denoise them.
        data: a prepared dataset in place of the benchmark's, such as one with label sets too. An
            entry whose dataset has slices of the other hospital is not tested on that.
        seeds: in place of the benchmark's.
        options: of the method. A list holds values to choose from on the validation fold.
    """

    __pydantic_config__ = _STRICT

    method: str
    unlabelled: bool | None = None
    random_start: bool = False
    steps: Count | None = None
    pretrain_steps: CountOrZero = 0
    data: Path | None = None
    seeds: Sequence[Seed] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the ranges, and refuse too many combinations of options."""
        check_ranges(self)
        number = math.prod(len(v) for v in self.options.values() if isinstance(v, list))
        if not 1 <= number <= MOST_CANDIDATES:
            raise ValueError(
                f"options have {number} combinations; give 1 to {MOST_CANDIDATES}, no empty list"
            )

    def candidates(self) -> list[dict[str, Any]]:
        """Return every combination of one value for each option."""
        values = [v if isinstance(v, list) else [v] for v in self.options.values()]
        return [dict(zip(self.options, chosen, strict=True)) for chosen in product(*values)]

    @property
    def uses_unlabelled(self) -> bool:
        """Whether unlabelled slices are in its batches."""
        return METHODS[self.method].unlabelled if self.unlabelled is None else self.unlabelled


@dataclass(frozen=True)
class Budget:
    """The number of labelled training slices, and the folds of patients.

    Attributes:
        labels: training slices that keep a label for every pixel; all if None.
        folds: number of folds of patients; each fold is the test fold once per seed.
        tested: number of folds that are tested; all if None.
        validation: whether a second fold selects weights and options. Without it, its patients are
            trained on and the last weights are tested.
    """

    __pydantic_config__ = _STRICT

    labels: Count | None
    folds: Few = 5
    tested: Few | None = None
    validation: bool = True

    @property
    def key(self) -> int:
        """The number of labelled slices in tables: -1 for all."""
        return -1 if self.labels is None else self.labels

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)
        if self.tested is not None and not 1 <= self.tested <= self.folds:
            raise ValueError(f"tested must be between 1 and {self.folds} folds, got {self.tested}")


@dataclass(frozen=True)
class Spec:
    """A benchmark.

    Attributes:
        data: a prepared dataset with labelled and unlabelled slices; split by patient.
        entries: what is compared, by the names in the tables.
        budgets: of labels.
        other_hospital: a prepared dataset of another hospital, on whose infection every model is
            tested.
        seeds: of the split, the kept labels, the initial weights and the batches.
        weights: initial weights of MobileNetV2 for every method that contains one.
        steps: optimiser steps of every method whose entry has no other number.
        labelled_per_batch: labelled slices in a batch.
        unlabelled_per_batch: unlabelled slices in a batch, for the methods that use them.
        affine: whether training slices are rotated, scaled and sheared freely.
        paste: share of labelled slices that get the lesions of a fully labelled one.
        optimiser: of every method whose options do not change it.
        validate_every: steps between two validations, which choose the tested weights.
        device: "auto" uses a GPU if there is one.
        precision: of the networks in training.
        read_out: options of the test. ``samples`` and ``batch_size`` apply to StitchNets;
            ``views``, ``least_patch`` and ``seed`` to every method. ``read_out``, ``decision`` and
            ``precision`` must be left out: a StitchNet is tested by q(y | x), or p(y | z) without a
            classifier, and by p(y | x, z); every method is tested by all ``decisions``, in 32 bits.
        decisions: decisions from probabilities to labels, a line of the tables each.
    """

    __pydantic_config__ = _STRICT

    data: Path
    entries: Mapping[str, Entry]
    budgets: Sequence[Budget]
    other_hospital: Path | None = None
    seeds: Sequence[Seed] = (0,)
    weights: str | None = None
    steps: Count = 800
    labelled_per_batch: Few = 4
    unlabelled_per_batch: Few = 4
    affine: bool = False
    paste: Share = 0.5
    optimiser: OptimiserConfig = _OPTIMISER
    validate_every: Count = 100
    device: str = "auto"
    precision: Precision = "32"
    read_out: ReadOutOptions = field(default_factory=ReadOutOptions)
    decisions: Sequence[Decision] = ("likeliest",)

    def __post_init__(self) -> None:
        """Check the entries and the ranges."""
        check_ranges(self)
        for name, entry in self.entries.items():
            if entry.method not in METHODS:
                raise ValueError(
                    f"entries.{name}: method {entry.method!r} is unknown; choose one of "
                    f"{', '.join(METHODS)}"
                )
            if entry.unlabelled and not METHODS[entry.method].unlabelled:
                raise ValueError(
                    f"entries.{name}: {entry.method} does not use unlabelled slices; leave out "
                    "`unlabelled`"
                )
            if entry.pretrain_steps and METHODS[entry.method].pretrain is None:
                raise ValueError(
                    f"entries.{name}: {entry.method} has no training on unlabelled slices alone; "
                    "leave out `pretrain_steps`"
                )
            if entry.seeds is not None and not 0 < len(set(entry.seeds)) == len(entry.seeds):
                raise ValueError(
                    f"entries.{name}: seeds must name at least one, and none twice; leave them out "
                    "for the benchmark's"
                )
            if len(entry.candidates()) > 1 and not all(b.validation for b in self.budgets):
                raise ValueError(
                    f"entries.{name}: options cannot be chosen where a budget has no validation; "
                    "give one value for each"
                )
        for name in ("entries", "budgets", "seeds", "decisions"):
            values = list(getattr(self, name))
            if not values:
                raise ValueError(f"{name} must name at least one")
            if len(values) > len(set(values)):  # it would count twice
                raise ValueError(f"{name} name one twice; leave out the second")
        if len({(b.key, b.folds) for b in self.budgets}) < len(self.budgets):
            raise ValueError(
                "budgets: two have the same numbers of labels and of folds, so the table cannot "
                "distinguish them; change one"
            )
        fixed = ("read_out", "decision", "precision")
        if any(getattr(self.read_out, name) != getattr(ReadOutOptions(), name) for name in fixed):
            raise ValueError(
                "read_out: leave out `read_out`, `decision` and `precision`; several read-outs are "
                "tested in 32 bits, and decisions are listed under `decisions`"
            )

    def data_of(self, entry: Entry) -> Path:
        """Return the prepared dataset that an entry is trained and tested on."""
        return self.data if entry.data is None else entry.data

    def steps_of(self, entry: Entry) -> int:
        """Return the optimiser steps of an entry."""
        return self.steps if entry.steps is None else entry.steps

    def lines(self, name: str) -> list[str]:
        """Return the lines of an entry in the tables: its predictors, with every decision."""
        predictors = ("", *METHODS[self.entries[name].method].predictors)
        return [
            line_name(name, variant_name(predictor, decision))
            for predictor, decision in product(predictors, self.decisions)
        ]

    def digest(self, entry: Entry, budget: Budget) -> str:
        """Return 12 hexadecimal digits of all that decides the results of an entry.

        The preset of a StitchNet is part of it. Other entries, budgets and seeds do not change it,
        nor does what has its default value.
        """
        shared = _given(self)
        for name in ("data", "entries", "budgets", "seeds", "device"):
            shared.pop(name, None)
        own = {**_given(entry), "data": self.data_of(entry), "validation": budget.validation}
        own.pop("seeds", None)
        name = entry.method.removeprefix("stitchnet-")
        if name != entry.method:
            own["preset"] = _given(preset(name))
        text = json.dumps([shared, own], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _given(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults."""
    given = {}
    for each in fields(config):
        value = getattr(config, each.name)
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if value != default:
            given[each.name] = _given(value) if is_dataclass(value) else value
    return given


def read_spec(path: Path) -> Spec:
    """Read the specification of a benchmark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or a key or value is wrong.
    """
    values = read_mapping(path)
    nested = {"optimiser": OptimiserConfig, "read_out": ReadOutOptions}
    known: dict[str, Any] = {f.name: None for f in fields(Spec)}
    known |= {name: {f.name: None for f in fields(kind)} for name, kind in nested.items()}
    check_keys(values, known, path)
    return validated(Spec, values, path)
