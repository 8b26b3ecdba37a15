"""One training run from folders of slices to a folder of results."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from pyro_stitchnet.data.batches import two_streams
from pyro_stitchnet.data.slices import Slices, read_folder
from pyro_stitchnet.data.splits import split_by_patient
from pyro_stitchnet.evaluation.report import evaluate
from pyro_stitchnet.files import write_atomically
from pyro_stitchnet.labels import GGO
from pyro_stitchnet.pictures import save_figure, training_curves
from pyro_stitchnet.presets import Preset, preset
from pyro_stitchnet.provenance import provenance
from pyro_stitchnet.stitchnet import StitchNet
from pyro_stitchnet.svae import check_size
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.loop import train

__all__ = ["TrainConfig", "choose_device", "run"]


@dataclass(frozen=True)
class TrainConfig:
    """What to train on, how long, and where to write.

    Attributes:
        labelled: folder of slices with masks of all four labels; split by patient.
        out: folder for the results; must not hold a run yet.
        unlabelled: folders of slices without masks (masks are ignored).
        partial: folders of slices whose masks follow the rule `partial_rule`.
        partial_rule: what the masks of `partial` mean: "infection" is 2 = GGO or consolidation.
        preset: article, reference, tiny or tiny-logistic.
        weights: MobileNetV2's start, "imagenet" or the path of a state dict; a random one by
            default.
        size: rows and columns of a slice, a multiple of 32.
        steps: optimiser steps.
        labelled_per_batch: labelled (and partial) slices in a batch.
        unlabelled_per_batch: unlabelled slices in a batch.
        learning_rate: Adam's, where not the preset's.
        label_weight: factor on log p(y | z), where not the preset's; 1 is eq. 9.
        augment: crop, flip and turn the training slices.
        fold: the fold of patients to test on; the next one validates.
        folds: how many folds.
        seed: of the split, the start, the batches and the draws.
        validate_every: steps between two validations.
        log_every: steps between two rows of the log.
        device: "auto" takes a GPU if there is one.
        progress: show a progress bar.
    """

    labelled: Path
    out: Path
    unlabelled: tuple[Path, ...] = ()
    partial: tuple[Path, ...] = ()
    partial_rule: Literal["infection", "lung", "control"] = "infection"
    preset: Literal["article", "reference", "tiny", "tiny-logistic"] = "article"
    weights: str | None = None
    size: int = 128
    steps: int = 1000
    labelled_per_batch: int = 4
    unlabelled_per_batch: int = 4
    learning_rate: float | None = None
    label_weight: float | None = None
    augment: bool = True
    fold: int = 0
    folds: int = 5
    seed: int = 0
    validate_every: int = 100
    log_every: int = 10
    device: str = "auto"
    progress: bool = True

    def check(self) -> None:
        """Raise ValueError for a number out of range: called before any work."""
        for name in ("steps", "validate_every", "log_every", "labelled_per_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.unlabelled_per_batch < 0 or self.seed < 0:
            raise ValueError("unlabelled_per_batch and seed must be at least 0")
        check_size((1, self.size, self.size))


def run(config: TrainConfig) -> Path:
    """Train, keep the best weights on validation, evaluate them once on the test patients.

    Writes ``model.pt``, ``log.csv``, ``curves.png``, ``run.json`` and, under ``test/``, what
    :func:`~pyro_stitchnet.evaluation.report.evaluate` writes. Patients of the validation and
    test folds are taken out of the unlabelled and partial slices too.

    Returns:
        The folder of the results.

    Raises:
        FileExistsError: ``out`` holds a run.
        FileNotFoundError: a folder or file is missing.
        ValueError: a folder, or the configuration, is not usable; the message names it.
    """
    config.check()
    if (config.out / "model.pt").exists():
        raise FileExistsError(f"{config.out}: holds a run already; choose another --out")
    settings = _settings(config)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    net = StitchNet(settings.model).to(device)
    labelled = read_folder(config.labelled, config.size)
    split = split_by_patient(labelled, fold=config.fold, folds=config.folds, seed=config.seed)
    held_out = {*split.validation.patients, *split.test.patients}
    partial = _read_all(config.partial, config.size, config.partial_rule, held_out)
    unlabelled = _read_all(config.unlabelled, config.size, None, held_out)
    if not (split.validation.labels() >= GGO).any():
        raise ValueError(
            f"{config.labelled}: the validation fold has no lesion to choose weights by; "
            "take another --fold, --folds or --seed"
        )
    counts = {
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "partial": len(partial) if partial else 0,
        "unlabelled": len(unlabelled) if unlabelled else 0,
    }
    print("slices: " + ", ".join(f"{n} {part}" for part, n in counts.items()))
    record = {
        "config": json.loads(json.dumps(asdict(config), default=str)),
        "settings": asdict(settings),
        "slices": counts,
        "patients": {
            "train": sorted(set(split.train.patients)),
            "validation": sorted(set(split.validation.patients)),
            "test": sorted(set(split.test.patients)),
            "partial": sorted(set(partial.patients)) if partial else [],
            "unlabelled": sorted(set(unlabelled.patients)) if unlabelled else [],
        },
        **provenance(),
    }
    config.out.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out / "run.json", json.dumps(record, indent=2) + "\n")

    trained = train(
        net,
        two_streams(
            split.train + partial if partial else split.train,
            unlabelled,
            (config.labelled_per_batch, config.unlabelled_per_batch if unlabelled else 0),
            seed=config.seed,
            augment=config.augment,
        ),
        config.steps,
        objective=settings.objective,
        optimiser=settings.optimiser,
        validation=split.validation,
        log_every=config.log_every,
        validate_every=config.validate_every,
        progress=config.progress,
    )
    record |= {"best_step": trained.best_step, "skipped_steps": trained.skipped}
    checkpoint.save(net, config.out / "model.pt", **record)
    write_atomically(config.out / "run.json", json.dumps(record, indent=2) + "\n")
    write_atomically(config.out / "log.csv", trained.log.to_csv(index=False))
    save_figure(training_curves(trained.log), config.out / "curves.png")
    evaluate(net, split.test, config.out / "test", info=record)
    print(
        f"kept the weights of step {trained.best_step} of {config.steps}; "
        f"{trained.skipped} steps had no finite loss or gradient"
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


def _settings(config: TrainConfig) -> Preset:
    """The preset, with what the configuration overrides."""
    chosen = preset(config.preset)
    if config.weights is not None:
        chosen = replace(chosen, model=replace(chosen.model, weights=config.weights))
    if config.learning_rate is not None:
        optimiser = replace(chosen.optimiser, learning_rate=config.learning_rate)
        chosen = replace(chosen, optimiser=optimiser)
    if config.label_weight is not None:
        objective = replace(chosen.objective, label_weight=config.label_weight)
        chosen = replace(chosen, objective=objective)
    return chosen


def _read_all(
    folders: Sequence[Path], size: int, rule: str | None, held_out: set[str]
) -> Slices | None:
    """The slices of all folders that belong to none of the patients held out."""
    whole: Slices | None = None
    for folder in folders:
        part = read_folder(folder, size, rule=rule).without_patients(held_out)
        if not len(part):
            raise ValueError(f"{folder}: all its patients are in the validation and test folds")
        whole = part if whole is None else whole + part
    return whole
