"""The assembly of a training: its streams, and the same bits for the same seed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import Slices, SliceSet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.callbacks import StateKeeper
from pyro_stitchnet.training.checkpoint import build
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.fit import fit
from pyro_stitchnet.training.learner import Learner, LossOutput
from pyro_stitchnet.training.run import learner_of
from pyro_stitchnet.training.state import State

SVAE = replace(preset("svae"), model=replace(preset("tiny-logistic").model, stitched=False))


def config_of(name: str, **options: Any) -> TrainConfig:
    chosen = SVAE if name == "svae" else preset(name)
    settings = {"steps": 3, "labelled_per_batch": 1, "unlabelled_per_batch": 1, "device": "cpu"}
    return TrainConfig(Path("d"), Path("o"), **vars(chosen), **{**settings, **options})


@pytest.fixture
def parts(slices: Slices) -> dict[str, Slices]:
    return {"labelled": slices.take([0, 1]), "unlabelled": slices.take([2, 3, 4])}


def fitted(
    config: TrainConfig, parts: Mapping[str, SliceSet], validation: Slices | None = None
) -> State:
    torch.manual_seed(config.seed)
    learner = learner_of(build(config.model), config.objective)
    return fit(learner, parts, config, validation=validation)


@pytest.mark.parametrize("name", ["tiny", "guided", "svae"])
def test_the_same_seed_gives_the_same_bits(
    name: str,
    parts: dict[str, Slices],
    slices: Slices,
    same_state: Callable[[nn.Module, nn.Module], bool],
) -> None:
    config = config_of(name, steps=2, log_every=1, validate_every=1)
    if name == "svae":
        parts["labelled"] = slices.take([])
    one, other = (fitted(config, parts, slices.take([5])) for _ in range(2))
    assert one.log.equals(other.log)
    assert len(one.log) == 2
    assert same_state(one.learner, other.learner)
    assert one.best_step == other.best_step
    another = fitted(replace(config, seed=1, steps=1), parts)
    assert another.log["loss"][0] != one.log["loss"][0]


class Recorder(Learner):
    """Keeps the names of the slices of every batch, and the slices that it begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.names: list[list[str]] = []
        self.unlabelled: list[list[bool]] = []
        self.begun: list[int] = []

    def begin(self, labelled: SliceSet, *, steps: int, new: bool = True) -> None:
        self.begun.append(len(labelled))

    def loss(self, batch: Batch, step: int) -> LossOutput:
        self.names.append(list(batch.names))
        self.unlabelled.append(batch.unlabelled.tolist())
        return LossOutput(self.weight * batch.x.mean())


def recorded(config: TrainConfig, parts: Mapping[str, SliceSet], **options: Any) -> Recorder:
    learner = Recorder()
    learner.uses_labels = config.model.stitched
    fit(learner, parts, config, **options)
    return learner


def test_batches_hold_labelled_and_unlabelled_slices(parts: dict[str, Slices]) -> None:
    learner = recorded(config_of("tiny", unlabelled_per_batch=2), parts)
    assert learner.unlabelled == [[False, True, True]] * 3
    assert {names[0] for names in learner.names} <= set(parts["labelled"].names)
    assert {n for names in learner.names for n in names[1:]} == set(parts["unlabelled"].names)
    assert learner.begun == [2]


def test_without_unlabelled_slices_batches_hold_labelled_ones(
    parts: dict[str, Slices], slices: Slices
) -> None:
    learner = recorded(config_of("tiny"), {**parts, "unlabelled": slices.take([])})
    assert learner.unlabelled == [[False]] * 3


def test_a_model_without_labels_gets_all_slices_of_a_batch_from_one_stream(
    parts: dict[str, Slices], slices: Slices
) -> None:
    config = config_of("svae", labelled_per_batch=2, unlabelled_per_batch=1)
    learner = recorded(config, {**parts, "labelled": slices.take([])})
    assert learner.unlabelled == [[True] * 3] * 3
    assert all(sorted(names) == sorted(parts["unlabelled"].names) for names in learner.names)


def test_without_labelled_slices_a_model_with_labels_is_refused(
    parts: dict[str, Slices], slices: Slices
) -> None:
    with pytest.raises(ValueError, match="must hold 1 labelled slices, but there are none"):
        recorded(config_of("tiny"), {**parts, "labelled": slices.take([])})


def test_a_resumed_training_goes_on_with_the_next_batch(
    parts: dict[str, Slices], tmp_path: Path
) -> None:
    whole = recorded(config_of("tiny", steps=4), parts)
    keeper = StateKeeper(tmp_path, {})
    recorded(config_of("tiny", steps=2), parts, callbacks=[keeper])
    resumed = recorded(config_of("tiny", steps=4), parts, resume=keeper)
    assert resumed.names == whole.names[2:]
    assert resumed.begun == []
