"""Batch norm's statistics computed again, and the gap between the modes."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised
from pyro_stitchnet.evaluation.baselines.bcp import BidirectionalCopyPaste
from pyro_stitchnet.evaluation.baselines.cps import CrossPseudoSupervision
from pyro_stitchnet.evaluation.baselines.mean_teacher import MeanTeacher
from pyro_stitchnet.evaluation.baselines.pseudo_labels import PseudoLabels
from pyro_stitchnet.evaluation.baselines.unimatch import FixMatch
from pyro_stitchnet.model.nn.norm import TwoRoleBatchNorm2d
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.batch_norm import (
    batch_statistics,
    mode_gap,
    recompute_statistics,
    statistics_of,
)
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.run import learner_of
from pyro_stitchnet.training.self_training import SelfTraining


def batches(n: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(n):
        labels = torch.randint(4, (2, 64, 64), generator=generator)
        allowed = torch.nn.functional.one_hot(labels, 4).bool()
        made.append(Batch(torch.rand(2, 64, 64, generator=generator), allowed))
    return made


def buffer(norm: nn.Module, name: str) -> torch.Tensor:
    return norm.get_buffer(name)


def test_the_statistics_are_means_over_the_batches() -> None:
    norm, given = nn.BatchNorm2d(1), batches(3)
    nn.init.constant_(buffer(norm, "running_mean"), 9.0)
    recompute_statistics(Supervised(nn.Sequential(norm, nn.Conv2d(1, 4, 1))), given, 1)
    x = torch.stack([batch.x for batch in given])
    torch.testing.assert_close(buffer(norm, "running_mean"), x.mean().reshape(1))
    torch.testing.assert_close(buffer(norm, "running_var"), x.flatten(1).var(1).mean().reshape(1))
    assert norm.momentum == 0.1


def test_random_state_mode_and_weights_stay_and_no_gradient_is_left() -> None:
    learner = Supervised(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 1)))
    weights = [p.clone() for p in learner.parameters()]
    state = torch.get_rng_state()
    for training in (True, False):
        learner.train(training)
        recompute_statistics(learner, batches(2), 1)
        mode_gap(learner, batches(1)[0], 1)
        assert learner.training is training
    assert torch.equal(torch.get_rng_state(), state)
    for before, after in zip(weights, learner.parameters(), strict=True):
        assert torch.equal(before, after)
        assert after.grad is None


def test_wrong_statistics_show_as_a_gap_that_new_ones_close() -> None:
    torch.manual_seed(0)
    norm, last, given = nn.BatchNorm2d(1), nn.Conv2d(1, 4, 1), batches(4)
    learner = Supervised(nn.Sequential(norm, last))
    last.weight.data[1] = 5.0
    nn.init.constant_(buffer(norm, "running_mean"), -3.0)
    assert abs(mode_gap(learner, given[0], 1)) > 0.5
    recompute_statistics(learner, given, 1)
    assert abs(mode_gap(learner, given[0], 1)) < 0.1


def test_statistics_of_other_batches_are_forgotten_afterwards() -> None:
    norm, given = nn.BatchNorm2d(1), batches(2)
    learner = Supervised(nn.Sequential(norm, nn.Conv2d(1, 4, 1)))
    x = torch.stack([batch.x for batch in given])
    with statistics_of(learner, given, 1):
        torch.testing.assert_close(buffer(norm, "running_mean"), x.mean().reshape(1))
    assert float(buffer(norm, "running_mean")) == 0
    assert int(buffer(norm, "num_batches_tracked")) == 0


def test_both_roles_of_the_shared_mappings_get_their_own() -> None:
    chosen = preset("tiny")
    net = StitchNet(replace(chosen.model, norm="batch"))
    recompute_statistics(learner_of(net, chosen.objective), batches(2), 1)
    norm = next(one for one in net.svae.crush.modules() if isinstance(one, TwoRoleBatchNorm2d))
    own, other = buffer(norm, "running_mean"), buffer(norm, "generating_mean")
    assert not torch.equal(own, other)
    assert (other != 0).any()


def test_within_batch_statistics_a_batch_is_normalised_by_its_own_in_evaluation_mode() -> None:
    norm = TwoRoleBatchNorm2d(1)
    x = 5 + 3 * torch.rand(2, 1, 64, 64)
    norm.eval()
    with batch_statistics(nn.Sequential(norm)):
        within = norm(x)
    assert not norm.training
    assert abs(float(within.mean())) < 1e-3
    assert float(within.std()) == pytest.approx(1, abs=1e-2)
    torch.testing.assert_close(norm.eval()(x), x, rtol=1e-4, atol=1e-4)  # mean 0, variance 1
    assert norm.momentum == 0.1


def test_statistics_that_stay_fixed_in_training_stay_fixed_within_batch_statistics() -> None:
    net = UNet()
    net.pretrained = True  # as after a start from ImageNet's weights
    fixed = next(one for one in net.encoder.modules() if isinstance(one, nn.BatchNorm2d))
    x = torch.rand(2, 1, 64, 64)
    net.eval()
    with torch.no_grad(), batch_statistics(net):
        net(x)
        assert not fixed.training
    assert not net.training
    assert not any(one.training for one in net.modules())


def mixed_batches() -> list[Batch]:
    """Two labelled and two brighter unlabelled slices each, with brighter strong views."""
    return [
        Batch(
            torch.cat([one.x / 2, one.x / 2 + 0.5]),
            torch.cat([one.allowed, torch.ones_like(one.allowed)]),
            strong=torch.ones(1, 4, 64, 64) * 0.9,
        )
        for one in batches(2)
    ]


@pytest.mark.parametrize(
    "build",
    [
        Supervised,
        MeanTeacher,
        FixMatch,
        BidirectionalCopyPaste,
        PseudoLabels,
        lambda network: CrossPseudoSupervision(network, deepcopy(network)),
    ],
)
def test_baselines_are_tested_with_statistics_of_the_labelled_slices_as_they_are(
    build: Callable[[nn.Module], Supervised],
) -> None:
    learner, given = build(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 4, 1))), mixed_batches()
    recompute_statistics(learner, given, 300)
    (norm, _) = learner.inference_network().children()
    expected = torch.stack([batch.x[:2] for batch in given]).mean()
    torch.testing.assert_close(buffer(norm, "running_mean"), expected.reshape(1))
    assert not torch.isclose(expected, torch.stack([batch.x for batch in given]).mean())


def test_self_training_is_tested_with_statistics_of_the_slices_as_they_are() -> None:
    torch.manual_seed(0)
    chosen, given = preset("guided"), mixed_batches()
    net = StitchNet(chosen.model)
    other = deepcopy(net)
    recompute_statistics(SelfTraining(net, chosen.objective), given, 1)
    recompute_statistics(ElboLearner(other, chosen.objective), given, 1)
    assert net.classifier is not None
    assert other.classifier is not None
    for one, two in zip(net.classifier.buffers(), other.classifier.buffers(), strict=True):
        torch.testing.assert_close(one, two)
