"""What a training run depends on: typed, from a YAML file and the command line."""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import tyro
import yaml
from pydantic import TypeAdapter, ValidationError

from pyro_stitchnet.presets import PRESETS, ModelConfig, Objective, OptimiserConfig, preset

__all__ = [
    "DEFAULT",
    "Precision",
    "TrainConfig",
    "check_keys",
    "from_yaml",
    "plain",
    "read_mapping",
    "to_yaml",
]

DEFAULT = "guided"
"""The preset of a run that names none."""

Precision = Literal["auto", "32", "bf16-mixed", "16-mixed"]
"""Of the networks: 32 bits, or 16 where that is safe; "auto" takes what is fast on the device."""


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, what, how long, on which machine, and where to write.

    Attributes:
        data: a dataset that `stitchnet prepare` wrote; split by patient.
        out: folder for the results; must not hold a run yet, nor other files.
        model: the networks.
        objective: what they maximise.
        optimiser: how.
        label_budget: how many of the training slices that have a label for every pixel keep them;
            all by default. Slices with sets of labels keep these.
        steps: optimiser steps.
        labelled_per_batch: slices with labels, or sets of labels, in a batch of one process.
        unlabelled_per_batch: slices without any in a batch of one process, where the dataset has
            some; 0 leaves them out.
        accumulate: batches whose gradients make one step.
        augment: crop, flip and turn the training slices.
        affine: turn by any angle, scale, shear and change grey values instead; for long runs.
        paste: share of annotated slices that get the lesions of another one.
        fold: the fold of patients to test on; the next one validates.
        folds: how many folds; with 0 nobody is held out, and the last weights are kept.
        seed: of the split, the start, the batches and the draws.
        validate_every: steps between two validations.
        patience: validations in a row without a better Dice after which to stop; never by default.
        minutes: after which to end the run, however many steps it made; never by default. The
            learning rate falls in time. Counted from where the run began or was gone on with.
        log_every: steps between two rows of the log.
        keep_every: steps between two states of the run kept, to go on from.
        keep_last: how many such states to keep.
        fast: validate at the end only and leave out the log's figures but the loss.
        resume: go on with a run that was stopped, by the command that began it.
        start: a checkpoint whose weights training begins with, of a model of the same networks; no
            patient that it was trained on may be held out.
        device: "auto" takes a GPU if there is one; "cpu", "cuda", "cuda:1".
        processes: training processes on this machine, one a GPU; under torchrun or SLURM on each.
        nodes: machines, each with so many processes.
        precision: of the networks; likelihood and KL are always in 32 bits. "auto" is bf16-mixed
            where the device computes in bf16, and 32 elsewhere.
        compile: compile encoder and decoder, which pays on GPUs in long runs.
        workers: processes that make batches ahead; 0 makes each when it is asked for.
        tensorboard: write scalars and pictures for TensorBoard.
        progress: show a progress bar.
    """

    data: tyro.conf.Positional[Path]
    out: Path
    model: ModelConfig = PRESETS[DEFAULT].model
    objective: Objective = PRESETS[DEFAULT].objective
    optimiser: OptimiserConfig = PRESETS[DEFAULT].optimiser
    label_budget: int | None = None
    steps: int = 1000
    labelled_per_batch: int = 4
    unlabelled_per_batch: int = 4
    accumulate: int = 1
    augment: bool = True
    affine: bool = False
    paste: float = 0.0
    fold: int = 0
    folds: int = 5
    seed: int = 0
    validate_every: int = 100
    patience: int | None = None
    minutes: float | None = None
    log_every: int = 10
    keep_every: int = 100
    keep_last: int = 1
    fast: bool = False
    resume: bool = False
    start: Path | None = None
    device: str = "auto"
    processes: int = 1
    nodes: int = 1
    precision: Precision = "32"
    compile: bool = False
    workers: int = 0
    tensorboard: bool = True
    progress: bool = True

    def check(self) -> None:
        """Raise ValueError for a number out of range: called before any work."""
        at_least_one = (
            "steps", "validate_every", "log_every", "keep_every", "keep_last",
            "labelled_per_batch", "accumulate", "processes", "nodes", "patience",
        )  # fmt: skip
        for name in at_least_one:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("unlabelled_per_batch", "seed", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, got {self.minutes}")
        for name, part in (("learning_rate", self.optimiser), ("label_weight", self.objective)):
            value = getattr(part, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")


def plain(config: Any) -> dict[str, Any]:
    """A configuration as numbers, strings, lists and dicts, as YAML and JSON have them."""
    return dict(TypeAdapter(type(config)).dump_python(config, mode="json"))


def to_yaml(config: TrainConfig) -> str:
    """The whole configuration, for `--config`; ``resume`` is for a call, not for a run."""
    said = plain(config)
    del said["resume"]
    return yaml.safe_dump(said, sort_keys=False)


def from_yaml(path: Path | None = None, name: str | None = None) -> TrainConfig:
    """The defaults of a run: a preset, and over it what a file says.

    Args:
        path: a YAML file of :class:`TrainConfig`'s fields, any of them, those of ``model``,
            ``objective`` and ``optimiser`` one level deeper; and ``preset``, what to start from.
        name: the preset, instead of the file's; the default if neither names one.

    Returns:
        The configuration; ``data`` and ``out`` are `tyro.MISSING` where the file has none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or a key or a value of it is wrong; the message has the nearest
            right key.
    """
    said = {} if path is None else read_mapping(path)
    start = said.pop("preset", None)
    try:
        base = preset(name or start or DEFAULT)
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from None
    known = asdict(TrainConfig(data=Path(), out=Path(), **vars(base)))
    check_keys(said, known, path)
    merged = {
        key: {**value, **said.get(key, {})} if isinstance(value, dict) else said.get(key, value)
        for key, value in known.items()
    }
    try:
        config = TypeAdapter(TrainConfig).validate_python(merged)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()
        )
        raise ValueError(f"{path}: {wrong}") from None
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    absent = {key: tyro.MISSING for key in ("data", "out") if key not in said}
    return TrainConfig(**{**values, **absent})


class _Loader(yaml.SafeLoader):
    """Takes 1e-3 for a number, as YAML 1.2 does; in PyYAML's 1.1 it is a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("+-0123456789")
)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, or no mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({error})") from None
    if said is None:
        return {}
    if not isinstance(said, dict):
        raise ValueError(f"{path}: must be a mapping like `steps: 1000`, a line a field")
    return said


def check_keys(
    said: Mapping[Any, Any], known: Mapping[str, Any], path: Path | None, above: str = ""
) -> None:
    """Refuse what is no field, and name the nearest one that is, wherever it belongs."""
    places = {name: above + name for name in known}
    for key, inside in known.items():
        if isinstance(inside, dict):
            places |= {name: f"{above}{key}.{name}" for name in inside}
    for key, value in said.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), places, 1)
            hint = f"did you mean {places[near[0]]!r}?" if near else "see `stitchnet train --help`"
            raise ValueError(f"{path}: unknown key {above + str(key)!r}; {hint}")
        if isinstance(known[key], dict):
            if not isinstance(value, dict):
                raise ValueError(f"{path}: {above + key!r} must be a mapping of its fields")
            check_keys(value, known[key], path, f"{above}{key}.")
