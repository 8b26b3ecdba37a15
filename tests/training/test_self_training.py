"""Self-training of q(y | x): its loss by hand, and what it does not change."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.classifier_loss import ClassifierLoss
from pyro_stitchnet.model.label_terms import Guided
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.self_training import SelfTraining

K = 4
GUIDED = preset("guided")
LABELS = Guided(guide_weight=0, consistency_weight=3.0)
OBJECTIVE = Objective(LABELS, free_bits=0.01)


def with_labels(**changes: Any) -> Objective:
    return replace(OBJECTIVE, labels=replace(LABELS, **changes))


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
    return Batch(x, allowed, torch.stack([x * 0.9, x * 0.8]))


def loss(learner: ElboLearner, batch: Batch, step: int = 1000) -> Tensor:
    torch.manual_seed(1)
    return learner.loss(batch, step).loss


@pytest.mark.parametrize("sets", [[0, 1, 2, 3], [1, 2, 3]])
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("source", ["posterior", "classifier"])
def test_it_adds_the_mean_loss_of_perturbed_views(
    learner: SelfTraining,
    monkeypatch: pytest.MonkeyPatch,
    sets: list[int],
    share: float,
    source: str,
) -> None:
    """Of the likeliest label within the set, where it or the infection is sure enough."""
    batch, net = batch_of([sets]), learner.net
    monkeypatch.setattr(functional, "dropout2d", lambda features, _: features / 2)
    with torch.no_grad():
        scores = net.log_separated if source == "posterior" else net.log_q
        r = scores(batch.x).exp() * batch.allowed
        r = r / r.sum(-1, keepdim=True)
        tissue = torch.stack([r[..., 0], r[..., 1], r[..., 2] + r[..., 3]]).amax(0)
        likeliest = tissue if source == "posterior" else r.amax(-1)
        confidence = float(likeliest.quantile(share))
        sure, y = (likeliest >= confidence).float(), r.argmax(-1)
        strong = [loss_of(net.log_q(view), y, sure) for view in batch.strong]
        halved = [f / 2 for f in learner.classifier.features(batch.x.unsqueeze(1))]
        log_q = learner.classifier.from_features(halved).log_softmax(1).movedim(1, -1)
        expected = (sum(strong) / 2 + loss_of(log_q, y, sure)) / 2
    monkeypatch.setattr(
        learner, "objective", with_labels(confidence=confidence, pseudo_labels=source)
    )
    added = loss(learner, batch) - loss(ElboLearner(net, OBJECTIVE), batch)
    assert float(added.detach()) == pytest.approx(3 * float(expected), rel=1e-3)


def loss_of(log_q: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    return -(log_q.gather(-1, y.unsqueeze(-1)).squeeze(-1) * weight).mean()


def test_where_every_pixel_has_one_label_nothing_is_added(learner: SelfTraining) -> None:
    batch = batch_of([[1], [3]])
    plain = ElboLearner(learner.net, OBJECTIVE)
    one, other = (float(loss(each, batch).detach()) for each in (learner, plain))
    assert one == pytest.approx(other, rel=1e-6)


def test_the_classifiers_loss_is_a_mean_over_the_labelled_slices(learner: SelfTraining) -> None:
    net, plain = learner.net, SelfTraining(learner.net, with_labels(consistency_weight=0)).eval()
    for batch in (batch_of([[1], [0, 1, 2, 3], [3]]), batch_of([[1]])):
        torch.manual_seed(1)
        log_q = net.log_q(batch.x)
        alone = bound(net, batch.x, batch.allowed, OBJECTIVE, log_q=log_q).loss
        labelled = ~batch.unlabelled
        expected = ClassifierLoss()(log_q[labelled], batch.allowed[labelled])
        added = loss(plain, batch) - alone
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


def test_the_classifier_learns_from_unlabelled_slices_by_confident_labels_only() -> None:
    learner, batch = new_learner(), batch_of([[0, 1, 2, 3], [0, 1, 2, 3]])
    for confidence, learns in ((0.0, True), (1.0, False)):
        learner.objective = with_labels(confidence=confidence)
        learner.zero_grad()
        loss(learner, batch).backward()
        gradients = [p.grad for p in learner.classifier.parameters() if p.grad is not None]
        assert any(gradient.any() for gradient in gradients) == learns


def test_it_needs_a_classifier_and_the_guided_term() -> None:
    with pytest.raises(ValueError, match="classifier=True"):
        SelfTraining(StitchNet(preset("tiny").model), OBJECTIVE)
    with pytest.raises(ValueError, match="labels 'guided'"):
        SelfTraining(StitchNet(GUIDED.model), Objective())
