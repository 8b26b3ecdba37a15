"""Self-training of q(y | x): its loss by hand, its weight, its teacher."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.classifier_loss import ClassifierLoss
from pyro_stitchnet.model.label_terms import Guided
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.learner import ElboLearner, ramp
from pyro_stitchnet.training.self_training import SelfTraining

K = 4
GUIDED = preset("guided")
LABELS = Guided(guide_weight=0, posterior_weight=3.0, posterior_warmup=10)
OBJECTIVE = Objective(LABELS, free_bits=0.01)


def new_learner() -> SelfTraining:
    torch.manual_seed(0)
    return SelfTraining(StitchNet(GUIDED.model), OBJECTIVE).eval()


@pytest.fixture(scope="module")
def learner() -> SelfTraining:
    """For tests that do not change it."""
    return new_learner()


def batch_of(sets: list[list[int]]) -> Batch:
    """One slice of random grey values per set of labels."""
    allowed = torch.zeros(len(sets), 64, 64, K, dtype=torch.bool)
    for one, labels in zip(allowed, sets, strict=True):
        one[..., labels] = True
    x = torch.rand(len(sets), 64, 64)
    return Batch(x, allowed, (x * 0.9)[None])


def loss(learner: ElboLearner, batch: Batch, step: int = 1000) -> Tensor:
    torch.manual_seed(1)
    return learner.loss(batch, step).loss


@pytest.mark.parametrize("sets", [[[0, 1, 2, 3]], [[2, 3]]], ids=["unlabelled", "infection"])
def test_it_adds_the_squared_difference_from_the_posterior(
    learner: SelfTraining, sets: list[list[int]]
) -> None:
    """Of q(y | x) for the strong view from the teacher's posterior for the slice itself."""
    batch, net = batch_of(sets), learner.net
    with torch.no_grad():
        # At the start the teacher is the classifier.
        q, teacher = net.log_q(batch.strong[0]).exp(), net.log_q(batch.x)
        torch.manual_seed(1)
        z1 = net.guide(batch.x, batch.allowed, OBJECTIVE)
        r = net.log_posterior(z1, batch.x).exp() * batch.allowed
        difference = (q - r / r.sum(-1, keepdim=True)).square().sum(-1).mean()
    torch.manual_seed(1)
    alone = bound(net, batch.x, batch.allowed, OBJECTIVE, log_q=teacher).loss
    expected = float(alone.detach() + 3 * difference)
    if sets == [[2, 3]]:  # an annotation, which the classifier's loss counts
        annotated = ClassifierLoss()(net.log_q(batch.x), batch.allowed)
        expected += float(annotated.detach())
    assert float(loss(learner, batch).detach()) == pytest.approx(expected, rel=1e-4)


def test_its_weight_rises(learner: SelfTraining) -> None:
    batch = batch_of([[0, 1, 2, 3]])
    plain = ElboLearner(learner.net, OBJECTIVE)
    added = [
        float((loss(learner, batch, step) - loss(plain, batch, step)).detach())
        for step in (5, 10, 20)
    ]
    assert added[1] == pytest.approx(added[2], rel=1e-2)
    assert added[0] == pytest.approx(added[1] * ramp(5, 10), rel=1e-2)


def test_where_every_pixel_has_one_label_nothing_is_added(learner: SelfTraining) -> None:
    batch = batch_of([[1], [3]])
    plain = ElboLearner(learner.net, OBJECTIVE)
    one, other = (float(loss(each, batch).detach()) for each in (learner, plain))
    assert one == pytest.approx(other, rel=1e-6)


def test_the_classifiers_loss_is_a_mean_over_the_labelled_slices(learner: SelfTraining) -> None:
    objective = replace(OBJECTIVE, labels=replace(LABELS, posterior_weight=0.0))
    net = learner.net
    learner = SelfTraining(net, objective).eval()
    for batch in (batch_of([[1], [0, 1, 2, 3], [3]]), batch_of([[1]])):
        torch.manual_seed(1)
        log_q = net.log_q(batch.x)
        alone = bound(net, batch.x, batch.allowed, objective, log_q=log_q).loss
        labelled = ~batch.unlabelled
        expected = ClassifierLoss()(log_q[labelled], batch.allowed[labelled])
        added = loss(learner, batch) - alone
        assert float(added.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)


def test_metrics_have_the_classifiers_labels(learner: SelfTraining) -> None:
    """Of the labelled slices, whatever else is in the batch."""
    batch = batch_of([[1], [0, 1, 2, 3], [3]])
    output = learner.loss(batch, 1)
    metrics = learner.metrics(batch, output)
    with torch.no_grad():
        predicted = learner.net.log_q(batch.x[[0, 2]]).argmax(-1)
    assert metrics["labelled/healthy"] == metrics["labelled/consolidation"] == 0.5
    for k, label in enumerate(("background", "healthy", "ggo", "consolidation")):
        share = float((predicted == k).float().mean())
        assert metrics[f"predicted/{label}"] == pytest.approx(share, abs=1e-3)


def test_the_classifier_learns_from_unlabelled_slices_and_the_teacher_does_not() -> None:
    learner = new_learner()
    loss(learner, batch_of([[0, 1, 2, 3], [0, 1, 2, 3]])).backward()
    assert any(p.grad is not None and p.grad.any() for p in learner.classifier.parameters())
    assert all(p.grad is None for p in learner.teacher.parameters())


def test_the_teacher_is_the_average_of_the_steps() -> None:
    learner = new_learner()
    learner.stepped()  # the average starts from the weights of the first step
    first = [p.clone() for p in learner.teacher.parameters()]
    for p in learner.classifier.parameters():
        p.data.add_(1)
    learner.stepped()
    for old, new in zip(first, learner.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 9 / 11, atol=1e-4, rtol=1e-3)


def test_it_needs_a_classifier_and_the_guided_term() -> None:
    with pytest.raises(ValueError, match="classifier=True"):
        SelfTraining(StitchNet(preset("tiny").model), OBJECTIVE)
    with pytest.raises(ValueError, match="labels 'guided'"):
        SelfTraining(StitchNet(GUIDED.model), Objective())
