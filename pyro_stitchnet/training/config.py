"""The configuration of a training run, from a YAML file and the command line."""

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import tyro
import yaml
from pydantic import TypeAdapter

from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.label_terms import (
    LABEL_TERMS,
    AnyLabelTerm,
    Enumerated,
    Guided,
    Marginal,
    Relaxed,
    Unlabelled,
)
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.presets import DEFAULT, PRESETS, OptimiserConfig, preset
from pyro_stitchnet.runtime.precision import Precision
from pyro_stitchnet.runtime.ranges import (
    Count,
    Few,
    FewOrZero,
    Positive,
    Processes,
    Seed,
    Share,
    Workers,
    check_ranges,
)
from pyro_stitchnet.runtime.settings import check_keys, read_mapping, validated

__all__ = [
    "TrainConfig",
    "from_yaml",
    "merge_label_term",
    "plain",
    "to_yaml",
]


@dataclass(frozen=True)
class TrainConfig:
    """The data, the model, the training and the machine of a run.

    Attributes:
        data: a dataset from `stitchnet prepare`; split by patient.
        out: folder for the results; must be empty or new.
        model: the networks.
        objective: label term and weights of the bound.
        optimiser: learning rate, schedule, clipping, average of the weights.
        label_budget: how many fully labelled training slices keep their labels; all by default.
            Partially labelled slices keep theirs.
        steps: optimiser steps.
        labelled_per_batch: fully or partially labelled slices in a batch of one process.
        unlabelled_per_batch: unlabelled slices in a batch of one process, if the dataset has any; 0
            leaves them out.
        accumulate: batches whose gradients make one step.
        augment: crop, flip and turn the training slices.
        affine: turn by any angle, scale, shear and change grey values instead; for long runs.
        paste: share of labelled slices that get the lesions of a fully labelled one.
        fold: the fold of patients to test on; the next one validates.
        folds: number of folds; with 0 all patients are trained on, and the last weights are kept.
        seed: of the split, the start, the batches and the draws.
        validate_every: steps between two validations.
        patience: stop after so many validations in a row without improvement; never by default.
        minutes: end the run after so many minutes of training, those before a resumption included;
            never by default. The learning rate falls accordingly.
        log_every: steps between two rows of the log.
        keep_every: steps between two saved states, to resume from.
        keep_last: number of states to keep.
        fast: validate at the end only, and log only the loss.
        resume: continue a run that was stopped; give the same options as at its start.
        start: a checkpoint with initial weights, of the same networks; no patient that it was
            trained on may be held out.
        device: "auto" is a GPU if there is one; or "cpu", "cuda", "cuda:1".
        processes: training processes on this machine, one per GPU; under torchrun or SLURM on each.
        nodes: machines, each with that many processes.
        precision: of the networks; likelihood and KL are always in 32 bits. "auto" is bf16-mixed
            where the device computes in bf16, and 32 elsewhere.
        compile: compile the networks, which pays off in long runs on GPUs.
        workers: processes that prepare batches in advance; 0 uses the training process.
        tensorboard: write scalars and figures for TensorBoard.
        progress: show a progress bar on a terminal. Elsewhere, or without it, each row of the log
            is a line.
    """

    data: tyro.conf.Positional[Path]
    out: Path
    model: ModelConfig = PRESETS[DEFAULT].model
    objective: Objective = PRESETS[DEFAULT].objective
    optimiser: OptimiserConfig = PRESETS[DEFAULT].optimiser
    label_budget: Count | None = None
    steps: Count = 1000
    labelled_per_batch: Few = 4
    unlabelled_per_batch: FewOrZero = 4
    accumulate: Few = 1
    augment: bool = True
    affine: bool = False
    paste: Share = 0.0
    fold: FewOrZero = 0
    folds: FewOrZero = 5
    seed: Seed = 0
    validate_every: Count = 100
    patience: Count | None = None
    minutes: Positive | None = None
    log_every: Count = 10
    keep_every: Count = 100
    keep_last: Few = 1
    fast: bool = False
    resume: bool = False
    start: Path | None = None
    device: str = "auto"
    processes: Processes = 1
    nodes: Processes = 1
    precision: Precision = "32"
    compile: bool = False
    workers: Workers = 0
    tensorboard: bool = True
    progress: bool = True

    def check(self) -> None:
        """Raise ValueError for a number out of range, or options that exclude each other."""
        check_ranges(self)
        if self.affine and not self.augment:
            raise ValueError("affine is an augmentation; leave out affine, or augment: false")
        if self.patience is not None and (self.fast or not self.folds):
            raise ValueError(
                "patience counts the validations of a run, and this one has none before its end; "
                "leave out patience, or fast and folds: 0"
            )
        if self.label_budget is not None and not self.model.stitched:
            raise ValueError("label_budget is for models with labels; leave it out")
        if self.compile and self.model.checkpointing:
            raise ValueError("compile and model.checkpointing do not work together; choose one")
        if not self.model.stitched and self.model.likelihood != "discretised-logistic":
            raise ValueError(
                "the SVAE alone is scored in bits per dimension, which needs likelihood "
                f"'discretised-logistic', not {self.model.likelihood!r}"
            )
        if self.model.stitched == isinstance(self.objective.labels, Unlabelled):
            raise ValueError(
                "labels 'unlabelled' belong to the SVAE alone (model: stitched: false), all others "
                "to a StitchNet"
            )
        if self.model.stitched and self.model.classifier != isinstance(
            self.objective.labels, Guided
        ):
            raise ValueError(
                "labels 'guided' and model.classifier need each other; choose other labels, or "
                "another preset"
            )


def plain(config: Any) -> dict[str, Any]:
    """Convert a configuration to the types of YAML and JSON; a label term gets its ``kind``."""
    values = dict(TypeAdapter(type(config)).dump_python(config, mode="json"))
    for name, part in vars(config).items():
        if dataclasses.is_dataclass(part):
            values[name] = plain(part)
    if isinstance(config, AnyLabelTerm):
        values = {"kind": config.kind, **values}
    return values


def to_yaml(config: TrainConfig) -> str:
    """The whole configuration for `--config`; without ``resume``, an option of a single call."""
    values = plain(config)
    del values["resume"]
    return yaml.safe_dump(values, sort_keys=False)


def from_yaml(path: Path | None = None, name: str | None = None) -> TrainConfig:
    """Read a configuration: a preset with the values of a file over it.

    Args:
        path: a YAML file with fields of :class:`TrainConfig`, those of ``model``, ``objective`` and
            ``optimiser`` one level deeper; and ``preset``, which the values change. The label term
            is ``objective: {labels: {kind: NAME, ...}}``, or only its name.
        name: the preset, in place of the file's; the default if neither has one.

    Returns:
        The configuration; ``data`` and ``out`` are `tyro.MISSING` where the file has none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or a key or a value is wrong; the message has the nearest valid
            key.
    """
    values = {} if path is None else read_mapping(path)
    start = values.pop("preset", None)
    if not isinstance(start, str | None):
        raise ValueError(f"{path}: preset must be a name, got {reprlib.repr(start)}")
    try:
        chosen = preset(name or start or DEFAULT)
        if isinstance(objective := values.get("objective"), dict) and "labels" in objective:
            labels = merge_label_term(chosen.objective.labels, objective["labels"])
            chosen = replace(chosen, objective=replace(chosen.objective, labels=labels))
            values["objective"] = {k: v for k, v in objective.items() if k != "labels"}
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from None
    base = TrainConfig(data=Path(), out=Path(), **vars(chosen))
    known = asdict(base)
    check_keys(values, known, path)
    known["objective"]["labels"] = base.objective.labels
    merged = {
        key: {**value, **values.get(key, {})} if isinstance(value, dict) else values.get(key, value)
        for key, value in known.items()
    }
    config = validated(TrainConfig, merged, path)
    fields_ = {field.name: getattr(config, field.name) for field in fields(config)}
    absent = {key: tyro.MISSING for key in ("data", "out") if key not in values}
    return TrainConfig(**{**fields_, **absent})


def merge_label_term(base: AnyLabelTerm, values: str | Mapping[str, Any]) -> AnyLabelTerm:
    """Change a label term by values of a file.

    Another ``kind`` starts from its own defaults, except that enumerated, marginal and relaxed
    labels, which are the same term otherwise, share their ``label_weight``.

    Args:
        base: the label term of the preset.
        values: a kind, or a mapping of options with or without ``kind``.

    Raises:
        ValueError: the kind or an option is unknown, or a value is wrong.
    """
    if not isinstance(values, str | Mapping):
        raise ValueError(
            f"labels must be a name or a mapping of options, got {reprlib.repr(values)}"
        )
    numbers = {"kind": values} if isinstance(values, str) else dict(values)
    kind = numbers.pop("kind", base.kind)
    if not isinstance(kind, str) or kind not in LABEL_TERMS:
        raise ValueError(
            f"labels {reprlib.repr(kind)} is unknown; choose one of {', '.join(LABEL_TERMS)}"
        )
    term = LABEL_TERMS[kind]
    known = {field.name for field in fields(term)}
    if unknown := [name for name in numbers if name not in known]:
        raise ValueError(
            f"labels {kind!r} have no option {reprlib.repr(unknown[0])}; they have "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    before = dict(vars(base)) if kind == base.kind else {}
    if isinstance(base, Enumerated | Marginal | Relaxed) and term in (
        Enumerated,
        Marginal,
        Relaxed,
    ):
        before["label_weight"] = base.label_weight
    try:
        return validated(term, {**before, **numbers})
    except ValueError as error:
        raise ValueError(f"objective.labels: {error}") from None
