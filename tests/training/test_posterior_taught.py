"""What the posterior teaches q(y | x): by hand, to whom, and where labels leave nothing open."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.data.batches import Batch
from pyro_stitchnet.objective import negative_elbo
from pyro_stitchnet.presets import preset
from pyro_stitchnet.sets import dice_loss
from pyro_stitchnet.stitchnet import StitchNet
from pyro_stitchnet.training import posterior_taught
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.posterior_taught import TEMPERATURE, PosteriorTaught, learner_of

K = 4
GUIDED = preset("guided")
TAUGHT = replace(GUIDED.objective, kl_warmup=0, posterior_weight=3.0, posterior_after=10)


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


def no_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        posterior_taught, "random_box", lambda shape: torch.zeros(*shape, dtype=torch.bool)
    )


def loss(learner: ElboLearner, batch: Batch) -> Tensor:
    torch.manual_seed(1)
    return learner.loss(batch, 1000)


@pytest.mark.parametrize("sets", [[[0, 1, 2, 3]], [[2, 3]]], ids=["unlabelled", "infection"])
def test_it_adds_the_cross_entropy_to_the_sharpened_posterior(
    learner: PosteriorTaught, sets: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the strong view of a slice without labels, of the slice itself where it has some."""
    no_box(monkeypatch)
    batch, net = batch_of(sets), learner.net
    found = loss(learner, batch)
    view = batch.strong[0] if len(sets[0]) == K else batch.x
    with torch.no_grad():
        log_q, lagging = net.log_q(view), net.log_q(batch.x)  # teacher and student are still one
        torch.manual_seed(1)
        posterior = net.log_posterior(net.guide(batch.x, batch.allowed, TAUGHT), batch.x)
        allowed = batch.allowed[0, 0, 0]
        r = posterior.exp()[..., allowed] ** (1 / TEMPERATURE)
        r = r / r.sum(-1, keepdim=True)
        taught = -(r * log_q[..., allowed]).sum(-1).mean()
    torch.manual_seed(1)
    bound = negative_elbo(net, batch.x, batch.allowed, TAUGHT, log_q=lagging)
    assert float(found) == pytest.approx(float(bound + 3 * taught), rel=1e-4)


def test_where_every_pixel_has_one_label_nothing_is_added(learner: PosteriorTaught) -> None:
    batch = batch_of([[1], [3]])
    plain = ElboLearner(learner.net, TAUGHT)
    assert float(loss(learner, batch)) == pytest.approx(float(loss(plain, batch)), rel=1e-6)


def test_slices_with_and_without_labels_exchange_a_box(
    learner: PosteriorTaught, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box over the whole slice: each is seen in the other's place, with what is known of it."""
    monkeypatch.setattr(
        posterior_taught, "random_box", lambda shape: torch.ones(*shape, dtype=torch.bool)
    )
    batch, net = batch_of([[3], [0, 1, 2, 3]]), learner.net
    with torch.no_grad():
        log_q = net.log_q(torch.stack([batch.strong[0, 1], batch.x[0]]))
        torch.manual_seed(1)
        posterior = net.log_posterior(net.guide(batch.x, batch.allowed, TAUGHT), batch.x)
        taught = -((posterior[1] / TEMPERATURE).softmax(-1) * log_q[0]).sum(-1).mean()
        told = -TAUGHT.label_weight * log_q[1, ..., 3].mean() + dice_loss(
            log_q[1], batch.allowed[0]
        )
    torch.manual_seed(1)
    unlabelled = replace(TAUGHT, label_weight=0, dice_weight=0)
    bound = negative_elbo(net, batch.x, batch.allowed, unlabelled, log_q=net.log_q(batch.x))
    assert float(loss(learner, batch) - bound) == pytest.approx(float(told + 3 * taught), rel=1e-3)


def test_q_learns_from_slices_without_labels_and_the_teacher_does_not(
    learner: PosteriorTaught,
) -> None:
    loss(learner, batch_of([[0, 1, 2, 3], [0, 1, 2, 3]])).backward()
    assert any(p.grad is not None and p.grad.any() for p in learner.segmenter.parameters())
    assert all(p.grad is None for p in learner.teacher.parameters())


def test_the_teacher_is_the_average_of_the_steps_on_annotated_slices(
    learner: PosteriorTaught,
) -> None:
    learner.stepped()  # the first step's weights are where the average begins
    first = [p.clone() for p in learner.teacher.parameters()]
    for p in learner.segmenter.parameters():
        p.data.add_(1)
    learner.loss(batch_of([[1]]), 10)
    learner.stepped()
    for old, new in zip(first, learner.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 9 / 11, atol=1e-4, rtol=1e-3)
    before = [p.clone() for p in learner.teacher.parameters()]
    learner.loss(batch_of([[1]]), 11)
    learner.stepped()
    assert all(map(torch.equal, before, learner.teacher.parameters()))


def test_at_first_only_annotated_slices_count_and_then_no_average_moves(
    learner: PosteriorTaught,
) -> None:
    learner.train()
    batch = batch_of([[1], [0, 1, 2, 3], [2, 3]])
    torch.manual_seed(1)
    found = learner.loss(batch, 10)
    torch.manual_seed(1)
    wanted = ElboLearner(learner.net, TAUGHT).loss(batch.annotated(), 10)
    assert float(found) == pytest.approx(float(wanted), rel=1e-4)
    learner.loss(batch, 11)
    averages = [b.clone() for b in learner.segmenter.buffers()]
    learner.train()  # as after a validation
    learner.loss(batch, 12)
    assert all(map(torch.equal, averages, learner.segmenter.buffers()))


def test_the_objective_says_who_teaches() -> None:
    net = StitchNet(GUIDED.model)
    assert type(learner_of(net, replace(TAUGHT, posterior_weight=0))) is ElboLearner
    assert type(learner_of(net, TAUGHT)) is PosteriorTaught
    with pytest.raises(ValueError, match="posterior_after"):
        replace(TAUGHT, posterior_after=0)
    with pytest.raises(ValueError, match="segmenter=True"):
        learner_of(StitchNet(preset("tiny").model), TAUGHT)
