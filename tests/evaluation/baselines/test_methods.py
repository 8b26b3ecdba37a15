"""Every method learns phantoms, and semi-supervised methods use the unlabelled slices."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from pyro_stitchnet.data.datasets.batches import Batch, TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.evaluation.baselines.base import Supervised, label_loss
from pyro_stitchnet.evaluation.baselines.mean_teacher import MeanTeacher
from pyro_stitchnet.evaluation.baselines.networks import SegNet, plain_unet
from pyro_stitchnet.evaluation.baselines.pseudo_labels import PseudoLabels
from pyro_stitchnet.evaluation.baselines.ua_mt import UncertaintyAwareMeanTeacher
from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.presets import OptimiserConfig
from pyro_stitchnet.training.learner import Learner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State

BASELINES = [name for name in METHODS if not name.startswith("stitchnet-")]
# Options that shorten the first phase of a method, so that a short test reaches the second.
EARLY: Mapping[str, Mapping[str, Any]] = {
    "pseudo-labels": {"pretraining_steps": 20, "every": 10},
    "bcp": {"pretraining_steps": 20, "decay": 0.9},
    "mean-teacher": {"decay": 0.9},
    "ua-mt": {"decay": 0.9},
}


@pytest.fixture(scope="module")
def slices() -> Slices:
    return phantom_slices(range(6), 2, size=64)


def new(name: str) -> Learner:
    torch.manual_seed(0)
    learner = METHODS[name].build(None, **EARLY.get(name, {}))
    learner.begin(phantom_slices(range(1), 1, size=64), steps=50)
    return learner


def batches(slices: Slices, learner: Learner, unlabelled: int) -> Iterator[Batch]:
    streams = TwoStreams(slices, slices, (3, unlabelled), strong_views=learner.strong_views)
    return streams.batches()


@pytest.mark.slow
@pytest.mark.parametrize("name", BASELINES)
def test_learns_phantoms(name: str, slices: Slices) -> None:
    learner, method = new(name), METHODS[name]
    state = State(learner, OptimiserConfig(learning_rate=2e-3, **method.optimiser))
    before = cross_entropy_of(learner, slices)
    train(state, batches(slices, learner, 2 if method.unlabelled else 0), 50, log_every=50)
    assert cross_entropy_of(learner, slices) < before - 0.5
    p = learner.probabilities(slices.images)
    healthy = slices.labels() == 1
    assert (p.argmax(1)[healthy] == 1).float().mean() > 0.7
    assert torch.allclose(p.sum(1), torch.ones(()), atol=1e-5)


def cross_entropy_of(learner: Learner, slices: Slices) -> float:
    truth = slices.labels().unsqueeze(1)
    return -float(
        learner.probabilities(slices.images).gather(1, truth).clamp_min(1e-9).log().mean()
    )


@pytest.mark.parametrize("name", BASELINES)
def test_batches_without_unlabelled_slices_are_accepted(name: str, slices: Slices) -> None:
    learner = new(name)
    for step in (1, 100):
        loss = learner.loss(next(batches(slices, learner, 0)), step).loss
        assert loss.isfinite()
        loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in learner.parameters())


@pytest.mark.parametrize("name", [n for n in BASELINES if METHODS[n].unlabelled])
def test_unlabelled_slices_change_the_loss(name: str, slices: Slices) -> None:
    """Through their pixels; their labels are hidden."""
    batch = next(batches(slices, new(name), 2))
    other = batch.x.clone()
    other[batch.unlabelled] = 0.2
    strong = batch.strong.clone()
    strong[:, batch.unlabelled] = 0.2
    losses = []
    for x, views in ((batch.x, batch.strong), (other, strong)):
        learner = METHODS[name].build(None, **{**EARLY.get(name, {}), **EAGER.get(name, {})})
        learner.begin(slices, steps=50)
        learner.load_state_dict(new(name).state_dict())
        torch.manual_seed(1)
        learner.eval()  # batch norm does not mix the slices
        losses.append(float(learner.loss(Batch(x, batch.allowed, views), 1000).loss))
    assert losses[0] != pytest.approx(losses[1], abs=1e-6)


EAGER: Mapping[str, Mapping[str, Any]] = {
    "fixmatch": {"confidence": 0.0},
    "unimatch": {"confidence": 0.0},
    "pseudo-labels": {"pretraining_steps": 0},
}


def test_the_loss_of_a_label_set_is_that_of_its_total_probability() -> None:
    logits = torch.randn(1, 4, 2, 2)
    allowed = torch.zeros(1, 2, 2, 4, dtype=torch.bool)
    allowed[..., 2:] = True
    expected = -logits.softmax(1)[:, 2:].sum(1).log().mean()
    assert float(label_loss(logits, allowed)) == pytest.approx(float(expected), rel=1e-5)
    assert float(label_loss(logits[:0], allowed[:0])) == 0


def test_right_labels_have_no_loss_and_unlabelled_pixels_do_not_count() -> None:
    y = torch.randint(4, (1, 8, 8))
    allowed = torch.nn.functional.one_hot(y, 4).bool()
    right = 50.0 * allowed.float().movedim(-1, 1)
    assert float(label_loss(right, allowed)) == pytest.approx(0, abs=1e-4)
    allowed[:, :4] = True
    right[:, :, :4] = torch.randn(1, 4, 4, 8)
    assert float(label_loss(right, allowed)) == pytest.approx(0, abs=1e-4)


def test_the_teacher_is_an_average_and_is_not_trained() -> None:
    learner = MeanTeacher(torch.nn.Conv2d(1, 4, 1), decay=0.5)
    learner.train()
    assert not learner.teacher.training
    assert not any(p.requires_grad for p in learner.teacher.parameters())
    for value in (1.0, 3.0):
        for p in learner.network.parameters():
            p.data.fill_(value)
        learner.stepped()
    # The first update copies the weights, the second keeps 2 / 11 of them.
    for p in learner.teacher.parameters():
        torch.testing.assert_close(p, torch.full_like(p, 1 * 2 / 11 + 3 * 9 / 11))


def test_pseudo_labels_come_from_a_copy_that_is_renewed(slices: Slices) -> None:
    """Counted in steps that changed the network: others may be skipped."""
    learner = PseudoLabels(torch.nn.Conv2d(1, 4, 1), pretraining_steps=2, every=2)
    batch = next(batches(slices, learner, 2))
    copies = []
    for step in range(1, 6):
        for p in learner.network.parameters():
            p.data.fill_(step)
        learner.loss(batch, step + 10)  # by itself, it does not change the copy
        copies.append(float(next(learner.copy.parameters()).flatten()[0]))
        learner.stepped()
    assert copies[2:] == [2, 2, 4]


def test_the_threshold_of_certainty_rises_over_the_whole_training(slices: Slices) -> None:
    network = torch.nn.Conv2d(1, 4, 1)
    bias = torch.tensor([0.0, 0.0, 0.0, 1.5])  # entropy .8 of the largest
    network.load_state_dict({"weight": torch.zeros(4, 1, 1, 1), "bias": bias})
    learner = UncertaintyAwareMeanTeacher(network)
    learner.begin(slices, steps=1000)
    batch = Batch(torch.zeros(1, 8, 8), torch.ones(1, 8, 8, 4).bool())
    means = [float(learner.consistency(torch.ones(1, 8, 8), batch, s)) for s in (1, 300, 1000)]
    assert means == [0, 0, 1]
    resumed = UncertaintyAwareMeanTeacher(torch.nn.Conv2d(1, 4, 1))
    resumed.load_state_dict(learner.state_dict())
    assert float(resumed.consistency(torch.ones(1, 8, 8), batch, 1000)) == 1


@pytest.mark.parametrize("network", [UNet, SegNet, plain_unet])
def test_networks_keep_the_size(network: type) -> None:
    net = network().eval()
    assert net(torch.rand(1, 1, 64, 96)).shape == (1, 4, 64, 96)


def test_the_networks_parameters() -> None:
    """SegNet's encoder is VGG16's; smp's U-Net over MobileNetV2 has 6.6 million."""
    counts = [sum(p.numel() for p in net.parameters()) for net in (UNet(), SegNet())]
    assert counts[0] == pytest.approx(6.63e6, rel=0.01)
    assert counts[1] == pytest.approx(29.4e6, rel=0.01)


def test_predicts_in_evaluation_mode_and_leaves_it(slices: Slices) -> None:
    learner = Supervised(torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Conv2d(1, 4, 1)))
    learner.train()
    one, all_of_them = (
        learner.probabilities(slices.images[:1]),
        learner.probabilities(slices.images),
    )
    assert torch.allclose(one, all_of_them[:1])
    assert learner.network.training
