"""What the posterior teaches q(y | x): by hand, how much, and where labels leave nothing open."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.model.classifier_loss import dice_loss
from pyro_stitchnet.model.objective import negative_elbo
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.learner import ElboLearner, ramp
from pyro_stitchnet.training.self_training import PosteriorTaught, learner_of

K = 4
GUIDED = preset("guided")
TAUGHT = replace(GUIDED.objective, kl_warmup=0, posterior_weight=3.0, posterior_warmup=10)


@pytest.fixture
def learner() -> PosteriorTaught:
    torch.manual_seed(0)
    return PosteriorTaught(StitchNet(GUIDED.model), TAUGHT).eval()


def batch_of(sets: list[list[int]]) -> Batch:
    """A slice a set of labels, of random grey values."""
    allowed = torch.zeros(len(sets), 64, 64, K, dtype=torch.bool)
    for one, labels in zip(allowed, sets, strict=True):
        one[..., labels] = True
    x = torch.rand(len(sets), 64, 64)
    return Batch(x, allowed, (x * 0.9)[None])


def loss(learner: ElboLearner, batch: Batch) -> Tensor:
    torch.manual_seed(1)
    return learner.loss(batch, 1000)


@pytest.mark.parametrize("sets", [[[0, 1, 2, 3]], [[2, 3]]], ids=["unlabelled", "infection"])
def test_it_adds_the_squared_difference_from_the_posterior(
    learner: PosteriorTaught, sets: list[list[int]]
) -> None:
    """Of q's answer to the strong view, from the teacher's posterior of the slice itself."""
    batch, net = batch_of(sets), learner.net
    found = loss(learner, batch)
    with torch.no_grad():
        q, lagging = net.log_q(batch.strong[0]).exp(), net.log_q(batch.x)  # teacher is student yet
        torch.manual_seed(1)
        posterior = net.log_posterior(net.guide(batch.x, batch.allowed, TAUGHT), batch.x).exp()
        r = posterior * batch.allowed
        taught = (q - r / r.sum(-1, keepdim=True)).square().sum(-1).mean()
    torch.manual_seed(1)
    bound = negative_elbo(net, batch.x, batch.allowed, TAUGHT, log_q=lagging)
    assert float(found) == pytest.approx(float(bound + 3 * taught), rel=1e-4)


def test_its_weight_rises(learner: PosteriorTaught) -> None:
    batch = batch_of([[0, 1, 2, 3]])
    plain = ElboLearner(learner.net, TAUGHT)
    added = []
    for step in (5, 10, 20):
        torch.manual_seed(1)
        found = learner.loss(batch, step)
        torch.manual_seed(1)
        added.append(float(found - plain.loss(batch, step)))
    assert added[1] == pytest.approx(added[2], rel=1e-2)
    assert added[0] == pytest.approx(added[1] * ramp(5, 10), rel=1e-2)


def test_where_every_pixel_has_one_label_nothing_is_added(learner: PosteriorTaught) -> None:
    batch = batch_of([[1], [3]])
    plain = ElboLearner(learner.net, TAUGHT)
    assert float(loss(learner, batch)) == pytest.approx(float(loss(plain, batch)), rel=1e-6)


def test_labels_count_as_in_the_bound_whatever_else_is_in_the_batch(
    learner: PosteriorTaught,
) -> None:
    """The mean over the slices that have some."""
    quiet = replace(TAUGHT, posterior_weight=0.0)
    with_others, alone = batch_of([[1], [0, 1, 2, 3], [3]]), batch_of([[1]])
    learner.objective = quiet
    net = learner.net
    unlabelled = replace(quiet, label_weight=0, dice_weight=0)
    for batch in (with_others, alone):
        torch.manual_seed(1)
        bound = negative_elbo(net, batch.x, batch.allowed, unlabelled, log_q=net.log_q(batch.x))
        told = batch.annotated()
        log_q = net.log_q(told.x)
        wanted = dice_loss(log_q, told.allowed) - quiet.label_weight * log_q[told.allowed].mean()
        assert float(loss(learner, batch) - bound) == pytest.approx(float(wanted), rel=1e-3)


def test_q_learns_from_slices_without_labels_and_the_teacher_does_not(
    learner: PosteriorTaught,
) -> None:
    loss(learner, batch_of([[0, 1, 2, 3], [0, 1, 2, 3]])).backward()
    assert any(p.grad is not None and p.grad.any() for p in learner.segmenter.parameters())
    assert all(p.grad is None for p in learner.teacher.parameters())


def test_the_teacher_is_the_average_of_the_steps(learner: PosteriorTaught) -> None:
    learner.stepped()  # the first step's weights are where the average begins
    first = [p.clone() for p in learner.teacher.parameters()]
    for p in learner.segmenter.parameters():
        p.data.add_(1)
    learner.stepped()
    for old, new in zip(first, learner.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 9 / 11, atol=1e-4, rtol=1e-3)


def test_the_objective_says_who_teaches() -> None:
    net = StitchNet(GUIDED.model)
    assert type(learner_of(net, replace(TAUGHT, posterior_weight=0))) is ElboLearner
    assert type(learner_of(net, TAUGHT)) is PosteriorTaught
    with pytest.raises(ValueError, match="posterior_weight"):
        replace(TAUGHT, posterior_weight=-1)
    with pytest.raises(ValueError, match="segmenter=True"):
        learner_of(StitchNet(preset("tiny").model), TAUGHT)
