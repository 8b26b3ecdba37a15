"""One training run from a prepared dataset to a folder of results."""

import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.dataset import ROWS, Dataset
from pyro_stitchnet.data.datasets.partition import cut
from pyro_stitchnet.data.datasets.splits import write_split
from pyro_stitchnet.evaluation.evaluate import evaluate
from pyro_stitchnet.figures import save_figure, training_curves
from pyro_stitchnet.figures.tensorboard import TensorBoard
from pyro_stitchnet.labels import GGO
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.runtime.devices import make_fabric
from pyro_stitchnet.runtime.files import refuse_others, write_atomically
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.callbacks import (
    Alarms,
    Callback,
    ProgressBar,
    StateKeeper,
)
from pyro_stitchnet.training.config import TrainConfig, plain, to_yaml
from pyro_stitchnet.training.health import alarms
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.self_training import learner_of
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.step import compile_networks

__all__ = ["run"]

PICTURED = 4  # validation slices that TensorBoard shows
BEGUN = (
    "config.yaml", "run.json", "split.csv", "log.csv", "curves.png", "states", "tensorboard",
    "test",
)  # fmt: skip
"""What a run that was killed before its first state may have left, beside which it begins anew."""


def run(config: TrainConfig) -> Path:
    """Train, keep the best weights on validation, evaluate them once on the test patients.

    With 0 folds nobody is held out: the last weights are kept and not evaluated.

    Writes ``config.yaml``, ``run.json``, ``split.csv``, ``log.csv``, ``curves.png``, under
    ``tensorboard/`` what TensorBoard reads, under ``test/`` what
    :func:`~pyro_stitchnet.evaluation.evaluate.evaluate` writes, and at last ``model.pt``. Until then
    there are ``states/``, from the last of which ``resume`` goes on: on the CPU, with as many
    threads, to the same bits. No slice of a patient of the validation or test fold is trained on,
    labelled or not. Of several processes, the first writes.

    Returns:
        The folder of the results.

    Raises:
        FileExistsError: ``out`` holds a run, and it is finished or is not to be gone on with; or it
            holds files that are of no run.
        FileNotFoundError: there is no finished dataset, no such weights, or no run to go on with.
        ValueError: the dataset, or the configuration, is not usable, or is not that of the run to
            go on with, or the model to start from is another, or knows patients that are held out;
            the message says what.
        FloatingPointError: 20 steps in a row were not finite.
        KeyboardInterrupt: the run was stopped; its message says where, and how to go on.
    """
    config.check()
    torch.manual_seed(config.seed)  # in every process, so that all draw alike
    net = StitchNet(config.model)  # before anything long, since it may lack its weights
    dataset = Dataset(config.data)
    keeper = StateKeeper(config.out / "states", _identity(config, dataset), config.keep_last)
    _check_out(config, keeper)
    parts, slices = cut(
        dataset,
        fold=config.fold,
        folds=config.folds,
        seed=config.seed,
        label_budget=config.label_budget,
    )
    validation = slices["validation"].load() if config.folds else None
    if validation is not None and not (validation.labels() >= GGO).any():
        raise ValueError(
            f"{config.data}: the validation fold has no lesion to choose weights by; "
            "take another --fold, --folds or --seed"
        )
    if config.start is not None and not config.resume:
        _start(net, config, parts, dataset)
    learner = learner_of(net, config.objective)
    fabric = make_fabric(
        config.device,
        processes=config.processes,
        nodes=config.nodes,
        precision=config.precision,
    )
    fabric.launch()
    first = fabric.is_global_zero
    streams = TwoStreams(
        slices["labelled"],
        slices["unlabelled"],
        (config.labelled_per_batch, config.unlabelled_per_batch if slices["unlabelled"] else 0),
        seed=config.seed,
        augment=config.augment,
        affine=config.affine,
        paste=config.paste,
        strong_views=learner.strong_views,
        jitter=learner.jitter,
        rank=fabric.global_rank,
        processes=fabric.world_size,
    )
    if not config.resume and config.start is None:
        learner.begin(slices["labelled"])
    learner.to(fabric.device)
    state = State(learner, config.optimiser, fabric)
    if config.resume:
        state.load(keeper.kept()[-1], keeper.config)
    record: dict[str, Any] = {
        "config": plain(config),
        "slices": {part: len(chosen) for part, chosen in slices.items()},
        "patients": {part: sorted(set(chosen.patients)) for part, chosen in slices.items()},
        "dataset": dataset.about,
        "processes": fabric.world_size,
        **provenance(),
    }
    if first:
        counts = ", ".join(f"{n} {part}" for part, n in record["slices"].items())
        print(f"slices: {counts}")
        config.out.mkdir(parents=True, exist_ok=True)
        write_atomically(config.out / "config.yaml", to_yaml(config))
        _write(config, record)
        write_split(config.out / "split.csv", dataset.manifest, parts)
    callbacks: list[Callback] = [Alarms(), keeper]
    if config.progress:
        callbacks.append(ProgressBar())
    if config.tensorboard:
        pictured = validation and validation.take(range(min(PICTURED, len(validation))))
        callbacks.append(TensorBoard(config.out / "tensorboard", pictured))
    if config.compile:
        compile_networks(net)
    begun, at = time.monotonic(), state.step
    try:
        train(
            state,
            streams.batches(first=state.step * config.accumulate, workers=config.workers),
            config.steps,
            validation=validation,
            callbacks=callbacks,
            accumulate=config.accumulate,
            log_every=config.log_every,
            validate_every=config.validate_every,
            keep_every=config.keep_every,
            patience=config.patience,
            minutes=config.minutes,
            fast=config.fast,
        )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"{stop}, which is saved; the same command with --resume goes on"
        ) from None
    if first:
        record |= {
            "best_step": state.best_step,
            "last_step": state.step,
            "skipped_steps": state.skipped,
            "resumed_at_steps": state.resumed,
            "steps_per_second": (state.step - at) / (time.monotonic() - begun),
            "alarms": alarms(state.rows),
        }
        _write(config, record)
        write_atomically(config.out / "log.csv", state.log.to_csv(index=False))
        save_figure(training_curves(state.log), config.out / "curves.png")
        if config.folds:
            evaluate(net, slices["test"].load(), config.out / "test", info=record)
        checkpoint.save(net, config.out / "model.pt", **record)  # with it the run is finished
        keeper.clear()
        print(_summary(record, config))
    fabric.barrier()
    return config.out


def _check_out(config: TrainConfig, keeper: StateKeeper) -> None:
    """Whether a run can begin or, with ``resume``, go on."""
    if (config.out / "model.pt").exists():
        raise FileExistsError(f"{config.out}: holds a finished run; choose another --out")
    if keeper.kept() and not config.resume:
        raise FileExistsError(
            f"{config.out}: holds an unfinished run; go on with it by --resume, or choose another "
            "--out"
        )
    if not config.resume:
        refuse_others(config.out, BEGUN)
    elif not keeper.kept():
        raise FileNotFoundError(
            f"{keeper.folder}: no state of a run to go on with; leave out --resume"
        )


def _start(net: StitchNet, config: TrainConfig, parts: pd.Series, dataset: Dataset) -> None:
    """Give a new model the weights of a trained one, if it may have them."""
    assert config.start is not None
    trained, info = checkpoint.load(config.start)
    ours, theirs = (asdict(replace(one.config, weights=None)) for one in (net, trained))
    if differ := [key for key, value in ours.items() if theirs[key] != value]:
        raise ValueError(
            f"{config.start}: its networks are others: {', '.join(differ)} differ; give the "
            "--preset or --config that it was trained with"
        )
    patients = info.get("patients", {})
    # Validation chose its weights: that patient is not unseen, either.
    seen = {name for part, names in patients.items() if part != "test" for name in names}
    held_out = set(dataset.manifest["patient"][parts != "train"])
    if familiar := sorted(seen & held_out):
        raise ValueError(
            f"{config.start}: was trained or chosen on patients that this run holds out "
            f"({', '.join(familiar[:3])}{', ...' if len(familiar) > 3 else ''}); hold nobody out, "
            "with --folds 0, and evaluate on others"
        )
    net.load_state_dict(trained.state_dict())


def _identity(config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
    """What a run's steps depend on, flat."""
    said = plain(config)
    for name in (
        "data", "out", "keep_every", "keep_last", "resume", "device", "workers", "tensorboard",
        "progress",
    ):  # fmt: skip
        del said[name]
    flat: dict[str, Any] = {}
    for name, value in said.items():
        inside = value if isinstance(value, dict) else None
        flat |= {name: value} if inside is None else {f"{name}.{k}": v for k, v in inside.items()}
    manifest = (dataset.folder / ROWS).read_bytes()
    return {**flat, "manifest": hashlib.sha256(manifest).hexdigest()}


def _write(config: TrainConfig, record: dict[str, Any]) -> None:
    write_atomically(config.out / "run.json", json.dumps(record, indent=2) + "\n")


def _summary(record: dict[str, Any], config: TrainConfig) -> str:
    ended = [] if record["last_step"] == config.steps else [f"ended before step {config.steps}"]
    lines = [
        *ended,
        f"kept the weights of step {record['best_step']} of {record['last_step']}; "
        f"{record['skipped_steps']} steps had no finite loss or gradient; "
        f"{record['steps_per_second']:.2f} steps/s",
        *(f"alarm at the end: {said}" for said in record["alarms"].values()),
    ]
    return "\n".join(lines)
