"""Training on unlabelled slices before the labels, in a benchmark."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.benchmark.cells import Cell
from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.evaluation.benchmark.runner import train_candidate
from pyro_stitchnet.evaluation.benchmark.spec import Entry, Spec
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.presets import OptimiserConfig
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.learner import Learner


def test_the_svae_is_pretrained_and_then_the_stitchnet_trained(
    small: Callable[..., Spec], slices: dict[str, Slices]
) -> None:
    entry = Entry("stitchnet-tiny", pretrain_steps=2)
    spec = small(entries={"tiny": entry}, steps=1, optimiser=OptimiserConfig(1e-3))
    trained = {}
    for name, pretrain_steps in (("new", 0), ("pretrained", 2)):
        cell = Cell(
            "tiny", replace(entry, pretrain_steps=pretrain_steps), spec.budgets[0], fold=0, seed=0
        )
        trained[name], _ = train_candidate(spec, cell, slices, {})
    nets = {name: learner.net for name, learner in trained.items()}
    moved = {
        part: max(
            float((a - b).abs().max())
            for a, b in zip(
                getattr(nets["new"], part).parameters(),
                getattr(nets["pretrained"], part).parameters(),
                strict=True,
            )
        )
        for part in ("svae", "heads")
    }
    # One step of Adam moves a weight by the rate at most: two such models differ by twice that.
    assert moved["heads"] <= 2.1e-3 < moved["svae"]


def test_a_unet_denoises_slices_before_it_learns_labels(
    small: Callable[..., Spec], slices: dict[str, Slices]
) -> None:
    entry = Entry("unet", pretrain_steps=2)
    spec = small(entries={"unet": entry}, steps=1, optimiser=OptimiserConfig(1e-3))
    decoders: list[list[torch.Tensor]] = []
    for pretrain_steps in (0, 2):
        cell = Cell(
            "unet", replace(entry, pretrain_steps=pretrain_steps), spec.budgets[0], fold=0, seed=0
        )
        learner, _ = train_candidate(spec, cell, slices, {})
        assert isinstance(learner.network, UNet)
        decoders.append(list(learner.network.decoder.parameters()))
    moved = max(float((a - b).abs().max()) for a, b in zip(*decoders, strict=True))
    assert moved > 2.1e-3  # one step of Adam on either side explains no more


def test_every_method_is_pretrained_with_batches_of_the_same_size(
    small: Callable[..., Spec], monkeypatch: pytest.MonkeyPatch, slices: dict[str, Slices]
) -> None:
    sizes = []

    def pretrain(learner: Learner, slices: object, config: TrainConfig) -> None:
        sizes.append(config.labelled_per_batch + config.unlabelled_per_batch)

    for name in ("unet", "stitchnet-tiny"):
        monkeypatch.setitem(METHODS, name, replace(METHODS[name], pretrain=pretrain))
        for unlabelled in (None, False):
            entry = Entry(name, unlabelled=unlabelled, pretrain_steps=1)
            spec = small(entries={"one": entry}, steps=1)
            cell = Cell("one", entry, spec.budgets[0], fold=0, seed=0)
            train_candidate(spec, cell, slices, {})
    assert sizes == [3, 3, 3, 3]


def test_a_method_that_cannot_learn_slices_alone_is_not_pretrained(
    small: Callable[..., Spec],
) -> None:
    with pytest.raises(ValueError, match="bcp has no training on unlabelled slices alone"):
        small(entries={"bcp": Entry("bcp", pretrain_steps=2)})
