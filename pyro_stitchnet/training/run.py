"""A training run: from a prepared dataset to a folder with the model."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pyro_stitchnet.data.datasets.dataset import ROWS, Dataset
from pyro_stitchnet.data.datasets.partition import partition
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.datasets.splits import write_split
from pyro_stitchnet.labels import GGO
from pyro_stitchnet.model.label_terms import Guided
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import check_size
from pyro_stitchnet.runtime.checksums import read_json, sha256, write_json
from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.runtime.fabric import is_first, make_fabric
from pyro_stitchnet.runtime.files import refuse_others, remove_unfinished, write_atomically
from pyro_stitchnet.runtime.locks import check_free, only_run
from pyro_stitchnet.runtime.precision import resolved
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.callbacks import (
    Callback,
    HealthWarnings,
    LogFile,
    ProgressBar,
    ProgressLines,
    Run,
    StateKeeper,
)
from pyro_stitchnet.training.config import TrainConfig, plain, to_yaml
from pyro_stitchnet.training.fit import fit
from pyro_stitchnet.training.health import health_warnings
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.preparation import check_preparation, note_preparation
from pyro_stitchnet.training.seen import seen, seen_hashes, seen_patients, summary_of_seen
from pyro_stitchnet.training.self_training import SelfTraining
from pyro_stitchnet.training.state import State, check_same_run
from pyro_stitchnet.training.svae_learner import SliceVAELearner

__all__ = ["learner_of", "run"]

BEGUN = (
    "config.yaml", "run.json", "split.csv", "log.csv", "curves.png", "states", "tensorboard",
    "test",
)  # fmt: skip
"""Files of a run that was killed before its first state; a new run overwrites them."""


def run(config: TrainConfig, callbacks: Sequence[Callback] = ()) -> Path:
    """Train a model and keep its best weights on the validation patients.

    With 0 folds all patients are trained on, and the last weights are kept.

    Writes ``config.yaml``, ``run.json``, ``split.csv``, ``log.csv``, which grows row by row, and
    ``model.pt`` last. Until then ``states/`` holds the states from which ``resume`` continues: on
    the CPU with the same bits, because a state keeps the number of threads. No slice of a patient
    of the validation or test fold is trained on, labelled or not. If there are several processes,
    only the first one writes.

    Args:
        config: the configuration.
        callbacks: called during the run, in addition to its own.

    Returns:
        The folder of the results.

    Raises:
        BlockingIOError: another run is writing to ``out``.
        FileExistsError: ``out`` holds a run that is finished or that ``resume`` should continue,
            or other files.
        FileNotFoundError: the dataset, the weights or the run to resume is missing.
        ValueError: the dataset or the configuration cannot be used, or differs from that of the run
            to resume; or the model to start from has other networks, was trained on patients that
            are held out, or on slices that were prepared otherwise.
        FloatingPointError: 20 steps in a row were not finite.
        KeyboardInterrupt: the run was stopped; the message has the step.
    """
    config.check()
    torch.manual_seed(config.seed)  # the same in every process
    net = checkpoint.build(config.model)  # first, since its weights may be missing
    fabric = make_fabric(
        config.device,
        processes=config.processes,
        nodes=config.nodes,
        precision=config.precision,
    )
    if is_first(fabric):
        check_free(config.out)  # else a running run would be reported as unfinished
    dataset = Dataset(config.data)
    _check_size(dataset, config)
    keeper = StateKeeper(config.out / "states", _identity(config, dataset), config.keep_last)
    _check_out(config, keeper)
    if config.resume:  # before anything of the run is overwritten
        check_same_run(keeper.kept()[-1], keeper.config)
    parts, slices = partition(
        dataset,
        fold=config.fold,
        folds=config.folds,
        seed=config.seed,
        label_budget=config.label_budget,
        labels=config.model.stitched,
    )
    _check_streams(slices, config)
    validation = slices["validation"].load() if config.folds else None
    if validation is not None and config.model.stitched:
        _check_lesions(validation, config)
    summary = summary_of_seen({part: chosen.manifest for part, chosen in slices.items()})
    if config.start is not None:
        before = _start(net, config, parts, dataset)
        summary = {name: values | before.get(name, {}) for name, values in summary.items()}
    learner = learner_of(net, config.objective)
    with only_run(config.out) if is_first(fabric) else nullcontext():
        if is_first(fabric):
            _check_out(config, keeper)  # again: another run may have ended since
        fabric.launch()
        record: dict[str, Any] = {
            "config": plain(config),
            "slices": {part: len(chosen) for part, chosen in slices.items()},
            **summary,
            "dataset": dataset.about,
            "processes": fabric.world_size,
            **provenance(),
            "earlier_parts": _earlier_parts(config) if config.resume else [],
        }
        this = Run(config, net, slices, record)
        bar = config.progress and sys.stderr.isatty()
        progress = ProgressBar() if bar else ProgressLines()
        callbacks = [
            HealthWarnings(),
            keeper,
            LogFile(config.out / "log.csv"),
            *callbacks,
            progress,
        ]
        if fabric.is_global_zero:
            counts = ", ".join(f"{n} {part}" for part, n in record["slices"].items())
            print(f"slices: {counts}", flush=True)
            _note_other_versions(record)
            write_atomically(config.out / "config.yaml", to_yaml(config))
            write_json(config.out / "run.json", record)
            write_split(config.out / "split.csv", dataset.manifest, parts)
            for callback in callbacks:
                callback.start(this)
        begun = time.monotonic()
        try:
            state = fit(
                learner,
                slices,
                config,
                validation=validation,
                fabric=fabric,
                callbacks=callbacks,
                resume=keeper if config.resume else None,
            )
        except KeyboardInterrupt as stop:
            if not keeper.kept():  # stopped before the first step
                raise
            done = f"{stop}, which is saved" if stop.args else "stopped at once"
            raise KeyboardInterrupt(
                f"{done}; run the same command with --resume to continue"
            ) from None
        if fabric.is_global_zero:
            _finish(this, state, callbacks, time.monotonic() - begun)
            keeper.clear()
            remove_unfinished(config.out)
            print(_summary(record, config))
        fabric.barrier()
    return config.out


def _finish(run: Run, state: State, callbacks: Sequence[Callback], seconds: float) -> None:
    """Complete the record, and write what marks the run as finished."""
    first = state.resumed[-1] if state.resumed else 0
    run.record.update(
        best_step=state.best_step,
        last_step=state.step,
        skipped_steps=state.skipped,
        resumed_at_steps=state.resumed,
        steps_per_second=(state.step - first) / seconds,
        warnings=health_warnings(state.rows),
    )
    write_json(run.config.out / "run.json", run.record)
    for callback in callbacks:
        callback.finish(run, state)
    checkpoint.save(run.net, run.config.out / "model.pt", **run.record)


def learner_of(net: StitchNet | SliceVAE, objective: Objective) -> ElboLearner | SliceVAELearner:
    """Return the learner that trains a model by an objective."""
    if isinstance(net, SliceVAE):
        return SliceVAELearner(net, objective)
    return SelfTraining(net, objective) if _self_trained(objective) else ElboLearner(net, objective)


def _self_trained(objective: Objective) -> bool:
    """Whether q(y | x) learns from pseudo-labels too."""
    return isinstance(objective.labels, Guided) and objective.labels.consistency_weight > 0


def _check_size(dataset: Dataset, config: TrainConfig) -> None:
    """Refuse slices whose size the networks cannot halve often enough."""
    size = dataset.size
    try:
        check_size((1, size, size), config.model.downsampling)
    except ValueError as error:
        raise ValueError(f"{config.data}: {error}, with `stitchnet prepare ... --size`") from None


def _check_streams(slices: Mapping[str, Dataset], config: TrainConfig) -> None:
    """Refuse batches of labelled slices without one, and self-training without one to use."""
    if config.model.stitched and config.labelled_per_batch and not len(slices["labelled"]):
        raise ValueError(
            f"{config.data}: no slice for training has labels; prepare it with masks, or train "
            "without labels (--preset svae, or --labelled-per-batch 0)"
        )
    used = config.unlabelled_per_batch and len(slices["unlabelled"])
    if _self_trained(config.objective) and not used and all(slices["labelled"].complete):
        raise ValueError(
            f"{config.data}: consistency_weight needs unlabelled slices for training, or slices "
            "with label sets; add some, or leave it out"
        )


def _check_lesions(validation: Slices, config: TrainConfig) -> None:
    """Refuse a validation fold that cannot rank weights by lesion Dice."""
    if not (validation.labels() >= GGO).any():
        raise ValueError(
            f"{config.data}: the validation fold has no lesion to choose weights by; "
            "take another --fold, --folds or --seed"
        )


def _check_out(config: TrainConfig, keeper: StateKeeper) -> None:
    """Refuse a folder in which this run cannot start or, with ``resume``, continue."""
    if (config.out / "model.pt").exists():
        raise FileExistsError(f"{config.out}: holds a finished run; choose another --out")
    if keeper.kept() and not config.resume:
        raise FileExistsError(
            f"{config.out}: holds an unfinished run; continue it with --resume, or choose another "
            "--out"
        )
    if not config.resume:
        refuse_others(config.out, BEGUN)
    elif not keeper.kept():
        raise FileNotFoundError(f"{keeper.folder}: no state of a run to resume; leave out --resume")


def _start(
    net: StitchNet | SliceVAE, config: TrainConfig, parts: pd.Series, dataset: Dataset
) -> dict[str, dict[str, Any]]:
    """Load the weights of a trained model; refuse it if it has seen slices that are held out.

    Returns:
        The part "start" of the run's record: the patients and hashes that it has seen; nothing if
        there are none. A run that resumes takes them from its own record.
    """
    assert config.start is not None
    if config.resume:
        before = read_json(config.out / "run.json")
        return {
            name: {part: own for part, own in before[name].items() if part == "start"}
            for name in ("patients", "hashes")
        }
    trained, info = checkpoint.load_any(config.start)
    ours, theirs = (
        asdict(replace(one.config, weights=None, checkpointing=False)) for one in (net, trained)
    )
    if differ := [key for key, value in ours.items() if theirs[key] != value]:
        raise ValueError(
            f"{config.start}: its networks differ in {', '.join(differ)}; give the --preset or "
            "--config that it was trained with"
        )
    check_preparation(dataset, config.start, info)
    note_preparation(dataset, config.start, info)
    held_out = dataset.manifest[parts != "train"]
    # A validation patient chose its weights, so that patient is not unseen either.
    if familiar := sorted(set(held_out["patient"][seen(held_out, info)])):
        raise ValueError(
            f"{config.start}: was trained or chosen on patients that this run holds out "
            f"({', '.join(familiar[:3])}{', ...' if len(familiar) > 3 else ''}), maybe under other "
            "names; train on all patients with --folds 0, and evaluate on others"
        )
    net.load_state_dict(trained.state_dict())
    patients, hashes = sorted(seen_patients(info)), seen_hashes(info)
    return {
        "patients": {"start": patients} if patients else {},
        "hashes": {"start": hashes} if hashes else {},
    }


def _earlier_parts(config: TrainConfig) -> list[dict[str, str]]:
    """Return the origin of each part of a run before it is resumed."""
    before = read_json(config.out / "run.json")
    return [*before["earlier_parts"], {name: before[name] for name in provenance()}]


def _note_other_versions(record: dict[str, Any]) -> None:
    """Print a note if a resumed run goes on with other code."""
    for before in record["earlier_parts"][-1:]:
        for name in ("commit", "python", "pyro-stitchnet", "torch", "pyro-ppl"):
            if record[name] != before[name]:
                print(
                    f"note: {name} was {before[name]} when the run stopped and is {record[name]}",
                    file=sys.stderr,
                )


def _identity(config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
    """The values that the steps of a run depend on."""
    values = plain(config)
    for name in (
        "data", "out", "keep_every", "keep_last", "resume", "device", "workers", "tensorboard",
        "progress",
    ):  # fmt: skip
        del values[name]
    del values["model"]["checkpointing"]
    values["precision"] = resolved(config.precision, choose_device(config.device))
    files = (dataset.folder / name for name in (ROWS, "dataset.json"))
    return {**values, "SHA-256 of the dataset": [sha256(file)[:12] for file in files]}


def _summary(record: dict[str, Any], config: TrainConfig) -> str:
    ended = [] if record["last_step"] == config.steps else [f"ended before step {config.steps}"]
    lines = [
        *ended,
        f"kept the weights of step {record['best_step']} of {record['last_step']}; "
        f"{record['skipped_steps']} steps had no finite loss or gradient; "
        f"{record['steps_per_second']:.2f} steps/s",
        *(f"warning at the end: {message}" for message in record["warnings"].values()),
    ]
    return "\n".join(lines)
