"""The loss of a StitchNet with its classifier's, its read-out, its anchors and its metrics."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.model.anchoring import output_layer
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.classifier_loss import ClassifierLoss
from pyro_stitchnet.model.label_terms import Guided
from pyro_stitchnet.model.levels import TissueLevels
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions, probabilities
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import learner
from pyro_stitchnet.training.diagnostics import bound_metrics
from pyro_stitchnet.training.learner import ElboLearner, ramp

K = 4
GUIDED = preset("guided")


@pytest.fixture
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(GUIDED.model).eval()


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(K, (2, 64, 64))


@pytest.fixture
def batch(labels: Tensor) -> Batch:
    allowed = torch.nn.functional.one_hot(labels, K).bool()
    return Batch(torch.rand(labels.shape), allowed)


def test_the_loss_is_the_bound_and_the_classifiers(
    net: StitchNet, batch: Batch, labels: Tensor
) -> None:
    """Cross-entropy and soft Dice by their weights, as of a supervised U-Net."""
    objective = Objective(Guided(guide_weight=0, label_weight=2, dice_weight=0.5))
    torch.manual_seed(1)
    output = ElboLearner(net, objective).loss(batch, 1)
    torch.manual_seed(1)
    alone = bound(net, batch.x, batch.allowed, objective)
    assert net.classifier is not None
    logits = net.classifier(batch.x[:, None])
    p, truth = logits.softmax(1), batch.allowed.movedim(-1, 1).float()
    dims = (0, 2, 3)
    dice = (2 * (p * truth).sum(dims) + 1) / ((p + truth).sum(dims) + 1)
    entropy = torch.nn.functional.cross_entropy(logits, labels)
    supervised = 2 * entropy + 0.5 * (1 - dice.mean())
    torch.testing.assert_close(output.loss, alone.loss + supervised, rtol=1e-4, atol=1e-5)
    assert output.bound is not None
    assert output.log_q is not None
    assert torch.equal(output.bound.z1, alone.z1)
    torch.testing.assert_close(output.log_q, logits.log_softmax(1).movedim(1, -1))
    # With guide_weight 0 the classifier learns from its own loss alone.
    weight = net.classifier.head[0].weight
    (gradient,) = torch.autograd.grad(output.loss, weight, retain_graph=True)
    (expected,) = torch.autograd.grad(supervised, weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_the_bound_takes_every_so_many_th_slice(net: StitchNet, batch: Batch) -> None:
    objective = Objective(Guided(bound_every=2))
    batch = Batch(batch.x.repeat(2, 1, 1), batch.allowed.repeat(2, 1, 1, 1))
    torch.manual_seed(1)
    output = ElboLearner(net, objective).loss(batch, 1)
    assert output.bound is not None
    assert output.bound.x.equal(batch.x[::2])
    assert net.classifier is not None
    assert output.log_q is not None
    assert len(output.log_q) == len(batch.x[::2])
    torch.manual_seed(1)
    log_q = net.log_q(batch.x)
    alone = bound(net, batch.x[::2], batch.allowed[::2], objective, log_q=log_q[::2])
    expected = alone.loss + ClassifierLoss()(log_q, batch.allowed)  # of all slices
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("slices", "taken"), [(1, 1), (2, 2), (3, 3), (4, 2), (8, 4)])
def test_the_bound_takes_at_least_two_slices(net: StitchNet, slices: int, taken: int) -> None:
    learner = ElboLearner(net, Objective(Guided(bound_every=2)))
    batch = Batch(torch.rand(slices, 64, 64), torch.ones(slices, 64, 64, K, dtype=torch.bool))
    assert len(batch.x[learner.in_bound(batch)]) == taken


def test_the_bound_takes_slices_of_every_kind(net: StitchNet) -> None:
    """In batches, fully labelled slices alternate with masks of infection."""
    learner = ElboLearner(net, Objective(Guided(bound_every=2)))
    rows = {"c": [1, 0, 0, 0], "p": [0, 0, 1, 1], "u": [1, 1, 1, 1]}

    def taken(kinds: str) -> list[int]:
        allowed = torch.tensor([rows[kind] for kind in kinds]).bool()[:, None, None]
        batch = Batch(torch.rand(len(kinds), 4, 4), allowed.expand(-1, 4, 4, -1))
        return learner.in_bound(batch).nonzero().flatten().tolist()

    assert taken("ccccuuuu") == [0, 2, 4, 6]
    assert taken("cpcpuuuu") == [0, 1, 4, 6]
    assert taken("pppp") == [0, 2]


@pytest.mark.parametrize(("weight", "learns"), [(0.0, False), (0.5, True)])
def test_unlabelled_slices_train_the_classifier_by_the_guide_weight(
    net: StitchNet, batch: Batch, weight: float, learns: bool
) -> None:
    learner = ElboLearner(net, Objective(Guided(guide_weight=weight)))
    learner.loss(Batch(batch.x, torch.ones_like(batch.allowed)), 1).loss.backward()
    assert net.classifier is not None
    gradients = [p.grad for p in net.classifier.parameters() if p.grad is not None]
    assert any(g.any() for g in gradients) == learns
    assert any(p.grad is not None and p.grad.any() for p in net.svae.parameters())


def test_unlabelled_slices_leave_the_classifier_as_it_is_with_labels_alone(batch: Batch) -> None:
    """Neither its gradients nor its batch-norm statistics depend on them."""
    mixed = Batch(
        torch.cat([batch.x, torch.rand_like(batch.x)]),
        torch.cat([batch.allowed, torch.ones_like(batch.allowed)]),
    )
    states = []
    for one in (batch, mixed):
        torch.manual_seed(0)
        learner = ElboLearner(StitchNet(GUIDED.model), GUIDED.objective)
        output = learner.loss(one, 1)
        output.loss.backward()
        assert output.log_q is not None
        assert output.log_q.exp().sum(-1).allclose(torch.ones(()), atol=1e-3)
        classifier = learner.net.classifier
        assert classifier is not None
        assert classifier.training
        states.append([*(p.grad for p in classifier.parameters()), *classifier.buffers()])
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other)


def test_the_classifier_has_gradients_without_a_labelled_slice_too(batch: Batch) -> None:
    """Processes of a run wait for each other's gradients."""
    learner = ElboLearner(StitchNet(GUIDED.model), GUIDED.objective)
    learner.loss(Batch(batch.x, torch.ones_like(batch.allowed)), 1).loss.backward()
    assert learner.net.classifier is not None
    assert all(p.grad is not None for p in learner.net.classifier.parameters())


def test_a_label_term_without_a_classifier_has_the_bound_alone(batch: Batch) -> None:
    tiny = preset("tiny")
    net = StitchNet(tiny.model)
    torch.manual_seed(1)
    output = ElboLearner(net, tiny.objective).loss(batch, 1000)
    torch.manual_seed(1)
    assert torch.equal(output.loss, bound(net, batch.x, batch.allowed, tiny.objective).loss)
    assert output.log_q is None


def test_the_kl_weight_follows_the_step(net: StitchNet, batch: Batch) -> None:
    learner = ElboLearner(net, replace(GUIDED.objective, kl_warmup=10, kl_weight=5))
    losses = []
    for step in (1, 10, 20):
        torch.manual_seed(1)
        losses.append(float(learner.loss(batch, step).loss.detach()))
    assert losses[0] != pytest.approx(losses[1], abs=1e-4)
    assert losses[1] == losses[2]


def test_metrics_are_those_of_the_pass_of_the_loss(net: StitchNet, batch: Batch) -> None:
    learner = ElboLearner(net, GUIDED.objective)
    output = learner.loss(batch, 1)
    assert output.bound is not None
    metrics = learner.metrics(batch, output)
    assert metrics == bound_metrics(output.bound, output.log_q)
    for k, label in enumerate(["background", "healthy", "ggo", "consolidation"]):
        allowed = batch.allowed[learner.in_bound(batch)]
        expected = float((allowed.int().argmax(-1) == k).float().mean())
        assert metrics[f"labelled/{label}"] == pytest.approx(expected)


def test_probabilities_are_the_models_own_read_out(net: StitchNet, batch: Batch) -> None:
    results = []
    learner = ElboLearner(net, GUIDED.objective)
    for function in (
        learner.probabilities,
        lambda x: probabilities(net, x, ReadOutOptions(read_out="posterior")),
    ):
        torch.manual_seed(1)
        results.append(function(batch.x))
    assert torch.equal(*results)


@pytest.mark.parametrize("anchored", [True, False])
def test_styles_are_anchored_if_the_configuration_has_it(anchored: bool, slices: Slices) -> None:
    net = StitchNet(replace(GUIDED.model, anchored=anchored))
    before = output_layer(net.heads, K)[1].clone()
    ElboLearner(net, GUIDED.objective).begin(slices, steps=1)
    assert torch.equal(before, output_layer(net.heads, K)[1]) != anchored


@pytest.mark.parametrize(("most", "used"), [(2, 2), (4, 4), (5, 5), (6, 6), (9, 6)])
def test_the_tissues_are_learnt_from_a_few_slices_spread_over_all(
    most: int, used: int, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []
    monkeypatch.setattr(learner, "MOST_SLICES", most)
    monkeypatch.setattr(TissueLevels, "fit", lambda _, x, allowed: fitted.append(len(x)))
    ElboLearner(StitchNet(GUIDED.model), GUIDED.objective).begin(slices, steps=1)
    assert fitted == [used]


@pytest.mark.parametrize("most", [2, 3, 5])
def test_the_tissues_are_learnt_from_fully_labelled_slices_first(
    most: int, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    infection = torch.where(slices.label_sets >= 4, 12, slices.label_sets)
    sets = torch.stack([infection[i] if i % 2 else slices.label_sets[i] for i in range(6)])
    mixed = replace(slices, label_sets=sets, complete=[i % 2 == 0 for i in range(6)])
    fitted: list[Tensor] = []
    monkeypatch.setattr(learner, "MOST_SLICES", most)
    monkeypatch.setattr(TissueLevels, "fit", lambda _, x, allowed: fitted.append(x))
    ElboLearner(StitchNet(GUIDED.model), GUIDED.objective).begin(mixed, steps=1)
    used = [i for i in range(6) if any(x.equal(slices.images[i]) for x in fitted[0])]
    assert used == {2: [0, 4], 3: [0, 2, 4], 5: [0, 1, 2, 4, 5]}[most]


def test_levels_are_learnt_for_the_weights_of_another_model_too(slices: Slices) -> None:
    net = StitchNet(GUIDED.model)
    assert net.levels is not None
    anchor, usual = output_layer(net.heads, K)[1].clone(), net.levels.usual.clone()
    ElboLearner(net, GUIDED.objective).begin(slices.take([]), steps=1, new=False)
    assert net.levels.usual.equal(usual)
    ElboLearner(net, GUIDED.objective).begin(slices, steps=1, new=False)
    assert not net.levels.usual.equal(usual)
    assert output_layer(net.heads, K)[1].equal(anchor)


def test_the_ramp_rises_to_1() -> None:
    values = [ramp(step, 10) for step in (0, 5, 10, 20)]
    assert values == pytest.approx([0.00674, 0.28650, 1, 1], abs=1e-4)
    assert ramp(1, 0) == 1
