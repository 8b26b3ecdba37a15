"""The guide's q(y | x): its bound by hand, who teaches it, how it is read, and starved styles."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.likelihoods import FROM_MOMENTS, InteriorBeta
from pyro_stitchnet.model.objective import estimator, negative_elbo
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import predict, segment
from pyro_stitchnet.presets import Objective, preset
from pyro_stitchnet.training.learner import ElboLearner

K = 4
BOUND = Objective(labels="guided", label_weight=0, dice_weight=0)  # without what teaches labels


@pytest.fixture
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("guided").model).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 64, 128)


def one_hot(y: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(y, K).bool()


class Pixels:
    """StitchNet's own programs on 2 x 2 pixels without z, with the networks' answers replaced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, net: StitchNet) -> None:
        a, b = 0.5 + 4 * torch.rand(2, 1, 2, 2, K)
        self.net, self.x = net, torch.rand(1, 2, 2)
        self.picture = Stitched(torch.randn(1, 2, 2, K), InteriorBeta(a, b))
        self.log_q = torch.randn(1, 2, 2, K).log_softmax(-1)
        monkeypatch.setattr("pyro_stitchnet.model.stitchnet.check_size", lambda shape, shrink: None)
        monkeypatch.setattr(net.svae, "model", lambda shape, objective: None)
        monkeypatch.setattr(net.svae, "guide", lambda x, objective: None)
        monkeypatch.setattr(net, "picture", lambda z1: self.picture)
        monkeypatch.setattr(net, "log_q", lambda x: self.log_q)

    def bound(self, allowed: Tensor | None) -> float:
        elbo = estimator(BOUND)
        return -elbo.loss(self.net.model, self.net.guide, self.x, allowed, BOUND)

    def by_hand(self, allowed: Tensor) -> float:
        """SUM_k r_k (log pi_k + log p_k(x) - log r_k), r_k in A proportional to q_k p_k(x)."""
        total = 0.0
        scores = self.picture.styles.log_prob(self.x[..., None])
        for i, j in itertools.product(range(2), repeat=2):
            labels = [k for k in range(K) if allowed[0, i, j, k]]
            weights = {k: (self.log_q[0, i, j, k] + scores[0, i, j, k]).exp() for k in labels}
            for k in labels:
                r = weights[k] / sum(weights.values())
                joint = self.picture.log_pi[0, i, j, k] + scores[0, i, j, k]
                total += float(r * (joint - r.log()))
        return total


@pytest.mark.parametrize("sets", ["none", "labels", "infection"])
def test_the_bound_is_that_by_hand(
    net: StitchNet, monkeypatch: pytest.MonkeyPatch, sets: str
) -> None:
    pixels = Pixels(monkeypatch, net)
    allowed = torch.ones(1, 2, 2, K, dtype=torch.bool)
    if sets == "labels":
        allowed = one_hot(torch.tensor([[[0, 1], [2, 3]]]))
    elif sets == "infection":
        allowed[..., :2] = False
    found = pixels.bound(None if sets == "none" else allowed)
    assert found == pytest.approx(pixels.by_hand(allowed), abs=1e-4)


def test_it_bounds_the_evidence_and_reaches_it_where_q_is_p_of_y_given_z(
    net: StitchNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = Pixels(monkeypatch, net)
    evidence = float(pixels.picture.log_prob(pixels.x).sum())
    assert pixels.bound(None) < evidence - 0.01
    pixels.log_q = pixels.picture.log_pi
    assert pixels.bound(None) == pytest.approx(evidence, abs=1e-4)


def test_with_one_label_a_pixel_it_is_the_articles_labelled_term(net: StitchNet, x: Tensor) -> None:
    y = one_hot(torch.randint(K, x.shape))
    losses = []
    for objective in (BOUND, Objective(labels="marginal")):
        torch.manual_seed(1)
        losses.append(negative_elbo(net, x, y, objective).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize(("weight", "taught"), [(0.0, False), (0.5, True)])
def test_unlabelled_slices_teach_q_by_the_guide_weight(
    net: StitchNet, x: Tensor, weight: float, taught: bool
) -> None:
    assert net.segmenter is not None
    objective = Objective(labels="guided", guide_weight=weight)
    negative_elbo(net, x, None, objective).backward()
    gradients = [p.grad for p in net.segmenter.parameters() if p.grad is not None]
    assert any(g.any() for g in gradients) == taught
    assert any(p.grad is not None and p.grad.any() for p in net.svae.parameters())


def test_labels_teach_q_as_they_teach_a_unet(net: StitchNet, x: Tensor) -> None:
    """With no gradient from the bound: cross-entropy and Dice, by their weights."""
    assert net.segmenter is not None
    y = torch.randint(K, x.shape)
    objective = Objective(labels="guided", guide_weight=0, label_weight=2, dice_weight=0.5)
    negative_elbo(net, x, one_hot(y), objective).backward()
    last = net.segmenter.head[0].weight
    found = last.grad.clone()
    net.zero_grad()
    p = net.segmenter(x[:, None]).softmax(1)
    truth = one_hot(y).movedim(-1, 1).float()
    dims = (0, 2, 3)
    dice = (2 * (p * truth).sum(dims) + 1) / ((p + truth).sum(dims) + 1)
    likelihood = torch.nn.functional.cross_entropy(net.segmenter(x[:, None]), y)
    (2 * likelihood + 0.5 * (1 - dice.mean())).backward()
    torch.testing.assert_close(found, last.grad, rtol=1e-3, atol=1e-6)


def test_q_is_what_is_predicted_and_needs_no_z(
    net: StitchNet, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = net.log_q(x).exp().movedim(-1, 1)
    assert torch.allclose(segment(net, x, read_out="guide").probabilities, q, atol=1e-6)
    monkeypatch.setattr(net.svae, "guide", lambda *_: pytest.fail("z was drawn"))
    assert torch.allclose(predict(net, x), q, atol=1e-6)


def test_the_posterior_deals_the_lesions_by_bayes_rule_and_leaves_the_infection(x: Tensor) -> None:
    torch.manual_seed(0)
    net = StitchNet(replace(preset("guided").model, tempering=0.7)).eval()
    with torch.no_grad():
        z1, log_q = net.guide(x), net.log_q(x)
        scores = net.picture(z1).styles.log_prob(x[..., None])
        found = net.log_posterior(z1, x)
    assert torch.allclose(found[..., :2], log_q[..., :2], atol=1e-5)
    assert torch.allclose(found.exp().sum(-1), torch.ones(()), atol=1e-5)
    odds = log_q[..., 3] - log_q[..., 2] + 0.7 * (scores[..., 3] - scores[..., 2])
    torch.testing.assert_close(found[..., 3] - found[..., 2], odds, rtol=1e-4, atol=1e-4)


def test_the_posterior_is_read_by_default(net: StitchNet, x: Tensor) -> None:
    answers = []
    for read_out in (None, "posterior"):
        torch.manual_seed(1)
        answers.append(segment(net, x, read_out=read_out).probabilities)
    assert torch.equal(*answers)


def test_a_model_without_q_says_so(x: Tensor) -> None:
    net = StitchNet(preset("tiny").model)
    with pytest.raises(ValueError, match="no q"):
        segment(net, x, read_out="guide")
    with pytest.raises(ValueError, match="segmenter=True"):
        negative_elbo(net, x, None, BOUND)


@pytest.mark.parametrize("shrink", [1, 2])
def test_coarse_styles_cannot_draw_a_slice(shrink: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs within blocks alone, a chequerboard and its negative, makes the same styles."""
    torch.manual_seed(0)
    net = StitchNet(replace(preset("guided").model, shrink=shrink)).eval()
    side = 64 // shrink
    board = (torch.arange(side)[:, None] + torch.arange(side)) % 2.0
    pictures = []
    for features in (board, 1 - board, 2 * board):
        maps = features.expand(1, net.config.decoder_channels, side, side)
        monkeypatch.setattr(net.svae, "features", lambda z1, maps=maps: maps)
        with torch.no_grad():
            pictures.append(net._picture(torch.zeros(1)))
    one, negative, brighter = (picture.styles.mean for picture in pictures)
    assert one.shape == (1, 64, 64, K)
    assert torch.allclose(one, negative, atol=1e-6)
    assert not torch.allclose(one, brighter, atol=1e-4)
    assert not torch.allclose(pictures[0].log_pi, pictures[1].log_pi, atol=1e-4)


@pytest.mark.parametrize("likelihood", FROM_MOMENTS)
@pytest.mark.parametrize(
    "heads", [{}, {"style_grain": 1}, {"style_grain": 1, "shared_heads": False}]
)
def test_anchored_styles_begin_at_their_labels_grey_values(
    likelihood: str, heads: dict[str, Any]
) -> None:
    """With two heads, with one or with nine; a label that is not there keeps its random start."""
    torch.manual_seed(0)
    config = replace(preset("guided").model, likelihood=likelihood, **heads)  # type: ignore[arg-type]
    net = StitchNet(config).eval()
    means = torch.tensor([0.05, 0.2, 0.5, 0.8])
    y = torch.randint(K - 1, (4, 64, 64))
    x = (means[y] + 0.03 * torch.randn(y.shape)).clamp(0, 1)
    before = list(net._outputs(K + 3)[1:])
    net.anchor(x, one_hot(y))
    with torch.no_grad():
        styles = net.picture(net.guide(x)).styles
    found = styles.mean[..., :3].mean((0, 1, 2))
    assert torch.allclose(found, means[:3], atol=0.06)
    assert torch.equal(before[0], net._outputs(K + 3)[1])
    scores = styles.log_prob(x[..., None])
    assert (scores[..., :3].argmax(-1) == y).float().mean() > 0.95


def test_free_likelihoods_cannot_be_anchored(x: Tensor) -> None:
    net = StitchNet(preset("article").model)
    with pytest.raises(ValueError, match="bounded-beta"):
        net.anchor(x, one_hot(torch.zeros(x.shape, dtype=torch.long)))


def test_training_begins_with_anchors_only_where_the_model_says_so() -> None:
    slices = phantom_slices([0, 1], 2, size=64)
    for anchored in (True, False):
        net = StitchNet(replace(preset("guided").model, anchored=anchored))
        before = net._outputs(K)[1].clone()
        ElboLearner(net, preset("guided").objective).begin(slices)
        assert torch.equal(before, net._outputs(K)[1]) != anchored


def test_prediction_is_the_learners_too(net: StitchNet, x: Tensor) -> None:
    learner = ElboLearner(net, preset("guided").objective)
    assert torch.equal(learner.predict(x), predict(net, x))
