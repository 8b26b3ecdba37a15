"""One training run from a prepared dataset to a folder of results."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from pyro_stitchnet.data.batches import TwoStreams
from pyro_stitchnet.data.dataset import ROWS, Dataset
from pyro_stitchnet.data.leakage import check
from pyro_stitchnet.data.splits import assign, keep_labels, write_split
from pyro_stitchnet.evaluation.report import evaluate
from pyro_stitchnet.files import write_atomically
from pyro_stitchnet.labels import GGO
from pyro_stitchnet.pictures import save_figure, training_curves
from pyro_stitchnet.presets import Preset, preset
from pyro_stitchnet.provenance import provenance
from pyro_stitchnet.stitchnet import StitchNet
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State

__all__ = ["TrainConfig", "choose_device", "run"]


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, how long, and where to write.

    Attributes:
        data: a dataset that `stitchnet prepare` wrote; split by patient.
        out: folder for the results; must not hold a run yet.
        labels: how many of the training slices keep their labels; all by default.
        preset: article, reference, tiny or tiny-logistic.
        weights: MobileNetV2's start, "imagenet" or the path of a state dict; a random one by
            default.
        steps: optimiser steps.
        labelled_per_batch: slices with labels, or sets of labels, in a batch.
        unlabelled_per_batch: slices without any in a batch, where the dataset has some; 0 leaves
            them out.
        learning_rate: Adam's, where not the preset's.
        warmup: steps over which the learning rate rises, where not the preset's.
        decay: what the learning rate does then, where not as in the preset: stays "constant", or
            falls to 0 along a "cosine".
        ema: decay of the moving average of the weights that is kept in their place, where not the
            preset's; .999 remembers about a thousand steps, 0 takes the weights themselves.
        label_weight: factor on log p(y | z), where not the preset's; 1 is eq. 9.
        augment: crop, flip and turn the training slices.
        fold: the fold of patients to test on; the next one validates.
        folds: how many folds.
        seed: of the split, the start, the batches and the draws.
        validate_every: steps between two validations.
        log_every: steps between two rows of the log.
        keep_every: steps between two states of the run kept, to go on from.
        resume: go on with a run that was stopped, by the command that began it.
        device: "auto" takes a GPU if there is one.
        progress: show a progress bar.
    """

    data: tyro.conf.Positional[Path]
    out: Path
    labels: int | None = None
    preset: Literal["article", "reference", "tiny", "tiny-logistic"] = "article"
    weights: str | None = None
    steps: int = 1000
    labelled_per_batch: int = 4
    unlabelled_per_batch: int = 4
    learning_rate: float | None = None
    warmup: int | None = None
    decay: Literal["constant", "cosine"] | None = None
    ema: float | None = None
    label_weight: float | None = None
    augment: bool = True
    fold: int = 0
    folds: int = 5
    seed: int = 0
    validate_every: int = 100
    log_every: int = 10
    keep_every: int = 100
    resume: bool = False
    device: str = "auto"
    progress: bool = True

    def check(self) -> None:
        """Raise ValueError for a number out of range: called before any work."""
        for name in ("steps", "validate_every", "log_every", "keep_every", "labelled_per_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.unlabelled_per_batch < 0 or self.seed < 0:
            raise ValueError("unlabelled_per_batch and seed must be at least 0")
        for name in ("learning_rate", "label_weight"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")


def run(config: TrainConfig) -> Path:
    """Train, keep the best weights on validation, evaluate them once on the test patients.

    Writes ``log.csv``, ``curves.png``, ``split.csv``, ``run.json``, under ``test/`` what
    :func:`~pyro_stitchnet.evaluation.report.evaluate` writes, and at last ``model.pt``. Until then
    there is ``state.pt``, from which ``resume`` goes on: on the CPU, with as many threads, to the
    same bits. No slice of a patient of the validation or test fold is trained on, labelled or not.

    Returns:
        The folder of the results.

    Raises:
        FileExistsError: ``out`` holds a run, and it is finished or is not to be gone on with.
        FileNotFoundError: there is no finished dataset, no such weights, or no run to go on with.
        ValueError: the dataset, or the configuration, is not usable, or is not that of the run to
            go on with; the message says what.
    """
    config.check()
    kept = config.out / "state.pt"
    _check_out(config, kept)
    settings = _settings(config)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    net = StitchNet(settings.model).to(device)
    dataset = Dataset(config.data)
    labelled = dataset.manifest["labelled"]
    try:
        parts = assign(dataset.manifest, fold=config.fold, folds=config.folds, seed=config.seed)
        if config.labels is not None:
            labelled = keep_labels(dataset.manifest, parts, config.labels, seed=config.seed)
    except ValueError as error:
        raise ValueError(f"{config.data}: {error}") from error
    check(dataset.manifest, parts)
    complete = dataset.manifest["complete"]
    rows = {
        "labelled": (parts == "train") & labelled,
        "unlabelled": (parts == "train") & ~labelled,
        "validation": (parts == "validation") & complete,
        "test": (parts == "test") & complete,
    }
    slices = {part: dataset.take(np.flatnonzero(chosen)) for part, chosen in rows.items()}
    validation = slices["validation"].load()
    if not (validation.labels() >= GGO).any():
        raise ValueError(
            f"{config.data}: the validation fold has no lesion to choose weights by; "
            "take another --fold, --folds or --seed"
        )
    counts = {part: len(chosen) for part, chosen in slices.items()}
    print("slices: " + ", ".join(f"{n} {part}" for part, n in counts.items()))
    record = {
        "config": json.loads(json.dumps(asdict(config), default=str)),
        "settings": asdict(settings),
        "slices": counts,
        "patients": {part: sorted(set(chosen.patients)) for part, chosen in slices.items()},
        "dataset": dataset.about,
        **provenance(),
    }
    streams = TwoStreams(
        slices["labelled"],
        slices["unlabelled"],
        (config.labelled_per_batch, config.unlabelled_per_batch if slices["unlabelled"] else 0),
        seed=config.seed,
        augment=config.augment,
    )
    config.out.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out / "run.json", json.dumps(record, indent=2) + "\n")
    write_split(config.out / "split.csv", dataset.manifest, parts)

    state = State(net, settings.optimiser)
    identity = _identity(config, dataset)
    if config.resume:
        state.load(kept, identity)
    try:
        train(
            state,
            streams.batches(first=state.step),
            config.steps,
            objective=settings.objective,
            validation=validation,
            log_every=config.log_every,
            validate_every=config.validate_every,
            keep=lambda: state.save(kept, identity),
            keep_every=config.keep_every,
            progress=config.progress,
        )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{stop}; the same command with --resume goes on") from None
    record |= {
        "best_step": state.best_step,
        "skipped_steps": state.skipped,
        "resumed_at_steps": state.resumed,
    }
    write_atomically(config.out / "run.json", json.dumps(record, indent=2) + "\n")
    write_atomically(config.out / "log.csv", state.log.to_csv(index=False))
    save_figure(training_curves(state.log), config.out / "curves.png")
    evaluate(net, slices["test"].load(), config.out / "test", info=record)
    checkpoint.save(net, config.out / "model.pt", **record)  # last: with it the run is finished
    kept.unlink()
    print(
        f"kept the weights of step {state.best_step} of {config.steps}; "
        f"{state.skipped} steps had no finite loss or gradient"
    )
    return config.out


def choose_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is a GPU if there is one.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "meta":
        raise ValueError("device 'meta' holds no numbers; try cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not to be had here ({error}); try cpu") from error
    return device


def _check_out(config: TrainConfig, kept: Path) -> None:
    """Whether a run can begin or, with ``resume``, go on."""
    if (config.out / "model.pt").exists():
        raise FileExistsError(f"{config.out}: holds a finished run; choose another --out")
    if kept.exists() and not config.resume:
        raise FileExistsError(
            f"{config.out}: holds an unfinished run; go on with it by --resume, or choose another "
            "--out"
        )
    if config.resume and not kept.exists():
        raise FileNotFoundError(f"{kept}: missing, nothing to go on with; leave out --resume")


def _identity(config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
    """What a run's steps depend on."""
    said = asdict(config)
    for name in ("data", "out", "keep_every", "resume", "device", "progress"):
        del said[name]
    manifest = (dataset.folder / ROWS).read_bytes()
    return {**said, "manifest": hashlib.sha256(manifest).hexdigest()}


def _settings(config: TrainConfig) -> Preset:
    """The preset, with what the configuration overrides."""
    chosen = preset(config.preset)
    if config.weights is not None:
        chosen = replace(chosen, model=replace(chosen.model, weights=config.weights))
    asked = {name: getattr(config, name) for name in ("learning_rate", "warmup", "decay", "ema")}
    given = {name: value for name, value in asked.items() if value is not None}
    chosen = replace(chosen, optimiser=replace(chosen.optimiser, **given))
    if config.label_weight is not None:
        objective = replace(chosen.objective, label_weight=config.label_weight)
        chosen = replace(chosen, objective=objective)
    return chosen
