"""Metrics of a bound by hand; bad steps are explained."""

import math

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.bound import Bound, bound
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.label_terms import Marginal
from pyro_stitchnet.model.likelihoods import InteriorBeta
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import style_gaps
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.diagnostics import (
    bound_metrics,
    diagnose,
    label_drop,
    not_finite_terms,
)

K = len(LABELS)
MEANS = [0.1, 0.2, 0.5, 0.9]


@pytest.fixture(scope="module")
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("tiny").model)


def stitched(means: list[float], logits: Tensor | None = None) -> Stitched:
    """A picture of 2 x 2 pixels with these mean styles."""
    mean = torch.tensor(means).expand(1, 2, 2, K)
    logits = torch.zeros(K) if logits is None else logits
    return Stitched(logits.expand(1, 2, 2, K), InteriorBeta(mean * 50, (1 - mean) * 50))


def of_labels(labels: list[list[int]]) -> tuple[Tensor, Tensor]:
    """A slice of 2 x 2 pixels with the grey values of its labels, and their sets."""
    y = torch.tensor([labels])
    return torch.tensor(MEANS)[y], torch.nn.functional.one_hot(y, K).bool()


def test_label_drop_is_zero_for_collapsed_styles_and_large_for_distinct_ones() -> None:
    x, allowed = of_labels([[0, 1], [2, 3]])
    assert label_drop(stitched([0.3] * 4), x, allowed) == pytest.approx(0, abs=1e-5)
    assert label_drop(stitched(MEANS), x, allowed) > 5


def test_label_drop_by_hand_on_pixels_with_one_label() -> None:
    picture = stitched(MEANS)
    x, allowed = of_labels([[2, 1], [2, 3]])
    allowed[0, 0, 0] = True  # unlabelled
    allowed[0, 0, 1] = torch.tensor([False, False, True, True])  # a set
    scores = picture.styles.log_prob(x[..., None])[0, 1]
    drops = [
        scores[i, k] - scores[i, [j for j in range(K) if j != k]].mean()
        for i, k in enumerate([2, 3])
    ]
    assert label_drop(picture, x, allowed) == pytest.approx(float(sum(drops) / 2), rel=1e-5)


def result(picture: Stitched, x: Tensor, allowed: Tensor | None) -> Bound:
    """A bound of this picture whose q(z | x) is the prior."""
    normal = torch.distributions.Normal(torch.zeros(1, 1, 2, 2), 1.0)
    levels = dict.fromkeys(range(1, 6), normal)
    return Bound(torch.zeros(()), torch.zeros(()), picture, x, allowed, levels, levels)


def test_shares_are_of_the_likeliest_labels_of_labelled_pixels() -> None:
    """A label that is nowhere the likeliest is never predicted."""
    x, allowed = of_labels([[3, 3], [0, 0]])
    allowed[0, 1] = True
    picture = stitched(MEANS, torch.tensor([0.5, 0.3, 0.1, 0.1]).log())
    metrics = bound_metrics(result(picture, x, allowed))
    assert [metrics[f"labelled/{label}"] for label in LABELS] == [0, 0, 0, 1]
    assert [metrics[f"predicted/{label}"] for label in LABELS] == [1, 0, 0, 0]
    assert metrics["share/consolidation"] == pytest.approx(0.1)
    log_q = torch.tensor([0.1, 0.1, 0.2, 0.6]).log().expand(1, 2, 2, K)
    classified = bound_metrics(result(picture, x, allowed), log_q)
    assert [classified[f"predicted/{label}"] for label in LABELS] == [0, 0, 0, 1]
    assert classified["share/consolidation"] == pytest.approx(0.1)


def test_terms_and_gaps_by_hand() -> None:
    x, allowed = of_labels([[0, 1], [2, 3]])
    allowed[0, 1] = True
    picture = stitched(MEANS, torch.tensor([0.4, 0.3, 0.2, 0.1]).log())
    metrics = bound_metrics(result(picture, x, allowed))
    scores = picture.styles.log_prob(x[..., None])
    mixture = (picture.log_pi + scores).logsumexp(-1)
    log_px = (scores[0, 0, 0, 0] + scores[0, 0, 1, 1] + mixture[0, 1].sum()) / 4
    assert metrics["elbo/log_px"] == pytest.approx(float(log_px), rel=1e-5)
    # of the annotated pixels alone
    assert metrics["elbo/log_py"] == pytest.approx((math.log(0.4) + math.log(0.3)) / 2, rel=1e-5)
    assert metrics["elbo/kl"] == sum(metrics[f"kl/z{n}"] for n in range(1, 6)) == 0
    gaps = style_gaps(picture.styles.mean)
    assert {f"style_gap/{pair}": gap for pair, gap in gaps.items()}.items() <= metrics.items()


def test_unlabelled_slices_of_a_mixed_batch_have_their_own_metrics() -> None:
    x, allowed = of_labels([[0, 1], [2, 3]])
    everything = torch.ones_like(allowed)
    picture = stitched(MEANS)
    for sets in (allowed, everything, None):
        names = bound_metrics(result(picture, x, sets))
        assert not [name for name in names if name.startswith("unlabelled_")]
        assert ("labelled/ggo" in names) == (sets is allowed)
    wide = Stitched(picture.log_pi.repeat(2, 1, 1, 1), picture.styles.expand((2, 2, 2, K)))
    names = bound_metrics(result(wide, x.repeat(2, 1, 1), torch.cat([allowed, everything])))
    assert sum(name.startswith("unlabelled_style_gap/") for name in names) == 6
    assert sum(name.startswith("unlabelled_share/") for name in names) == 4


def test_diagnose_leaves_mode_and_random_state_alone(net: StitchNet) -> None:
    batch = Batch(torch.rand(2, 32, 32), torch.ones(2, 32, 32, K, dtype=torch.bool))
    net.train()
    state = torch.get_rng_state()
    metrics = diagnose(net, batch)
    assert net.training
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        expected = bound(net.eval(), batch.x, batch.allowed, Objective(Marginal()))
    assert metrics["elbo/log_px"] == pytest.approx(float(expected.log_px.mean()), rel=1e-5)


def test_a_step_that_is_not_finite_is_explained() -> None:
    net = StitchNet(preset("tiny").model)
    x = torch.full((2, 64, 64), 0.5)
    x[1, 3, 4] = math.nan
    batch = Batch(x, torch.ones(2, 64, 64, 4, dtype=torch.bool), names=["good", "bad"])
    assert not_finite_terms(net, batch) == "not finite: bad: its grey values"
    finite = Batch(batch.x[:1], batch.allowed[:1])
    assert "another term or the gradient is not" in not_finite_terms(net, finite)
    with torch.no_grad():
        for weights in net.svae.up[0].parameters():  # of d~1 from z2, for the prior of z1
            weights.fill_(math.inf)
    message = not_finite_terms(net, finite)
    assert message.startswith("not finite: 0: ")
    assert "kl/z1" in message
    assert "kl/z5" not in message
