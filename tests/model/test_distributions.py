"""Stitching and the ladder's Gaussians against brute force and Bayes' rule by hand."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.model.distributions import (
    ExpectedStitched,
    ExpRelaxedCategorical,
    Picked,
    Stitched,
    pick,
    product_of_normals,
)
from pyro_stitchnet.model.likelihoods import (
    FAMILIES,
    InteriorBeta,
)

K = 4


def beta_styles(*batch: int) -> InteriorBeta:
    """K random styles a pixel, none with a pole at an end."""
    a, b = 1 + 4 * torch.rand(2, *batch, K, dtype=torch.float64)
    return InteriorBeta(a, b)


def test_picked_takes_the_style_of_each_label() -> None:
    styles, x, y = beta_styles(2, 3), torch.rand(2, 3).double(), torch.randint(K, (2, 3))
    picked = Picked(y, styles)
    log_prob, mean = picked.log_prob(x), picked.mean
    for i, j in itertools.product(range(2), range(3)):
        k = int(y[i, j])
        one = InteriorBeta(styles.concentration1[i, j, k], styles.concentration0[i, j, k])
        assert log_prob[i, j] == pytest.approx(one.log_prob(x[i, j]).item())
        assert mean[i, j] == pytest.approx(one.mean.item())


def test_picked_takes_an_enumerated_label() -> None:
    styles, x = beta_styles(2, 3, 5), torch.rand(2, 3, 5).double()
    picked = Picked(torch.arange(K).reshape(K, 1, 1, 1), styles)
    assert picked.batch_shape == (K, 2, 3, 5)
    expected = styles.log_prob(x.unsqueeze(-1)).movedim(-1, 0)
    assert torch.equal(picked.log_prob(x), expected)
    assert torch.equal(picked.mean, styles.mean.movedim(-1, 0))
    assert picked.sample(torch.Size([7])).shape == (7, K, 2, 3, 5)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [3, 1], [2]])
def test_an_enumerated_label_is_picked_as_a_label_of_each_pixel(labels: list[int]) -> None:
    values = torch.randn(2, 3, 5, K)
    enumerated = torch.tensor(labels).reshape(-1, 1, 1, 1)
    everywhere = enumerated.expand(-1, 2, 3, 5).clone()
    assert torch.equal(pick(values, enumerated), pick(values, everywhere))
    assert torch.equal(pick(values, enumerated)[-1], values[..., labels[-1]])


def test_picked_draws_from_the_style_of_each_label() -> None:
    mean = torch.tensor([0.1, 0.35, 0.6, 0.9])
    styles = InteriorBeta(1000 * mean, 1000 * (1 - mean))
    y = torch.randint(K, (4, 6))
    draws = Picked(y, styles).sample(torch.Size([100]))
    assert (draws - mean[y]).abs().max() < 0.1


def test_draws_of_pixels_that_share_a_style_are_independent() -> None:
    """One broadcast distribution still gives one draw per pixel, also in a plate."""
    styles = InteriorBeta(torch.tensor([2.0] * K), torch.tensor([3.0] * K))
    assert len(Picked(torch.zeros(50), styles).sample().unique()) > 40
    with pyro.plate("pixels", 50):
        assert len(pyro.sample("x", Picked(torch.tensor(0), styles)).unique()) > 40
        assert len(pyro.sample("s", Stitched(torch.zeros(K), styles)).unique()) > 40


# --- Stitched -------------------------------------------------------------------------------------


def test_stitched_with_all_labels_allowed_is_a_mixture() -> None:
    logits, styles, x = torch.randn(2, 3, K).double(), beta_styles(2, 3), torch.rand(2, 3).double()
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits), styles, validate_args=False
    )
    free = Stitched(logits, styles)
    torch.testing.assert_close(free.log_prob(x), mixture.log_prob(x))
    torch.testing.assert_close(free.mean, mixture.mean)
    everything = Stitched(logits, styles, torch.ones(2, 3, K, dtype=torch.bool))
    assert torch.equal(everything.log_prob(x), free.log_prob(x))


@pytest.mark.parametrize("k", range(K))
def test_stitched_with_one_label_is_the_labelled_likelihood(k: int) -> None:
    logits, styles, x = torch.randn(2, 3, K).double(), beta_styles(2, 3), torch.rand(2, 3).double()
    allowed = torch.arange(K) == k
    expected = logits.log_softmax(-1)[..., k] + styles.log_prob(x.unsqueeze(-1))[..., k]
    torch.testing.assert_close(Stitched(logits, styles, allowed).log_prob(x), expected)


@pytest.mark.parametrize(
    "allowed", [a for a in itertools.product((False, True), repeat=K) if any(a)]
)
def test_stitched_and_responsibilities_are_bayes_rule_by_hand(allowed: tuple[bool, ...]) -> None:
    logits, styles, x = torch.randn(3, K).double(), beta_styles(3), torch.rand(3).double()
    stitched = Stitched(logits, styles, torch.tensor(allowed))
    log_prob, responsibilities = stitched.log_prob(x), stitched.responsibilities(x)
    density = styles.log_prob(x.unsqueeze(-1)).exp()
    for i in range(3):
        prior = [math.exp(logits[i, k]) / sum(math.exp(v) for v in logits[i]) for k in range(K)]
        joint = [prior[k] * density[i, k].item() if allowed[k] else 0.0 for k in range(K)]
        assert log_prob[i] == pytest.approx(math.log(sum(joint)))
        assert responsibilities[i].tolist() == pytest.approx([p / sum(joint) for p in joint])
        assert responsibilities[i].sum() == pytest.approx(1)
        assert all(responsibilities[i, k] == 0 for k in range(K) if not allowed[k])


@pytest.mark.parametrize("kind", [Stitched, ExpectedStitched])
def test_given_a_set_is_the_same_as_built_with_it(kind: type[Stitched]) -> None:
    logits, styles, x = torch.randn(5, K).double(), beta_styles(5), torch.rand(5).double()
    allowed = torch.tensor([True, False, True, False]).expand(5, K)
    free = kind(logits, styles)
    given, made = free.given(allowed), kind(logits, styles, allowed)
    assert type(given) is kind
    assert torch.equal(given.log_prob(x), made.log_prob(x))
    assert torch.equal(given.responsibilities(x), made.responsibilities(x))
    assert free.allowed is None, "given() changed the picture itself"


def test_sets_may_differ_from_pixel_to_pixel() -> None:
    logits, styles, x = torch.randn(5, K).double(), beta_styles(5), torch.rand(5).double()
    allowed = torch.tensor(
        [[1, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 0, 0]]
    ).bool()
    together = Stitched(logits, styles, allowed).log_prob(x)
    for i in range(5):
        style = InteriorBeta(styles.concentration1[i], styles.concentration0[i])
        assert together[i] == Stitched(logits[i], style, allowed[i]).log_prob(x[i])


def test_a_larger_set_is_never_less_likely() -> None:
    logits, styles, x = torch.randn(50, K).double(), beta_styles(50), torch.rand(50).double()
    allowed = torch.zeros(K, dtype=torch.bool)
    last = torch.full((50,), -math.inf).double()
    for k in (2, 0, 3, 1):
        allowed[k] = True
        score = Stitched(logits, styles, allowed.clone()).log_prob(x)
        assert (score > last).all()
        last = score


def test_over_x_a_set_integrates_to_its_prior_probability() -> None:
    logits, (a, b) = torch.randn(K).double(), 2 + 3 * torch.rand(2, K).double()
    allowed = torch.tensor([False, False, True, True])
    stitched = Stitched(logits, InteriorBeta(a, b), allowed)
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    total = torch.trapezoid(stitched.log_prob(x).exp(), x)
    assert total == pytest.approx(logits.softmax(-1)[2:].sum().item(), abs=1e-4)


def test_gradients_of_stitched_are_finite_and_leave_forbidden_styles_alone() -> None:
    a = torch.full((6, K), 3.0, requires_grad=True)
    logits = torch.tensor([[80.0, -80.0, 0.0, 0.0]]).expand(6, K).clone().requires_grad_()
    allowed = torch.tensor([False, True, True, False])
    x = torch.linspace(0, 1, 6)
    Stitched(logits, FAMILIES["beta"](a, torch.ones(6, K)), allowed).log_prob(x).sum().backward()
    assert a.grad is not None
    assert logits.grad is not None
    assert a.grad.isfinite().all()
    assert logits.grad.isfinite().all()
    assert (a.grad[:, ~allowed] == 0).all()
    assert (a.grad[:, 2] != 0).all()


def test_stitched_draws_labels_from_pi_and_grey_from_their_styles() -> None:
    n, mean = 20_000, torch.tensor([0.1, 0.35, 0.6, 0.9])
    styles = InteriorBeta(2000 * mean, 2000 * (1 - mean))  # no two overlap
    pi = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    stitched = Stitched(pi.log(), styles.expand(torch.Size([2, K])))
    draws = stitched.sample(torch.Size([n]))
    assert draws.shape == (n, 2)
    torch.testing.assert_close(draws.mean(0), stitched.mean, rtol=0, atol=0.01)
    nearest = (draws.unsqueeze(-1) - mean).abs().argmin(-1)
    frequencies = torch.stack([(nearest == k).float().mean(0) for k in range(K)], -1)
    torch.testing.assert_close(frequencies, pi, rtol=0, atol=5 * 0.5 / n**0.5)


def test_the_styles_given_a_pixel_are_equally_far_from_their_means() -> None:
    torch.manual_seed(0)
    styles = dist.Beta(2 + 5 * torch.rand(6, 4), 2 + 5 * torch.rand(6, 4))
    picture, x = Stitched(torch.randn(6, 4), styles), 0.3 + 0.4 * torch.rand(6)
    for k in range(4):
        certain = torch.nn.functional.one_hot(torch.tensor(k), 4).float().expand(6, 4)
        given = picture.styles_given(x, certain)
        torch.testing.assert_close(given[:, k], x)
        scores = (given - styles.mean) / styles.variance.sqrt()
        inside = (given > 0) & (given < 1)
        expected = scores[:, k : k + 1].expand(6, 4)
        torch.testing.assert_close(scores[inside], expected[inside], rtol=1e-4, atol=1e-4)


def test_the_styles_given_a_pixel_average_over_its_labels() -> None:
    styles = dist.Normal(torch.tensor([0.2, 0.3, 0.5, 0.6]), torch.tensor([0.1, 0.1, 0.1, 0.05]))
    given = Stitched(torch.zeros(4), styles).styles_given(
        torch.tensor(0.4), torch.tensor([0.0, 0.5, 0.5, 0.0])
    )
    torch.testing.assert_close(given, styles.mean)  # 1 deviation above healthy, 1 below GGO


def test_stitched_broadcasts_in_plates() -> None:
    logits, styles = torch.randn(3, 5, K).double(), beta_styles(3, 5)
    d = Stitched(logits, styles, torch.tensor([True, True, False, False]))
    wide = d.expand(torch.Size([2, 3, 5]))
    x = torch.rand(2, 3, 5).double()
    assert wide.batch_shape == (2, 3, 5)
    torch.testing.assert_close(wide.log_prob(x), d.log_prob(x))
    assert wide.sample().shape == (2, 3, 5)
    assert isinstance(
        ExpectedStitched(logits, styles).expand(torch.Size([2, 3, 5])), ExpectedStitched
    )


# --- The bound of the authors' program ------------------------------------------------------------


def test_expected_stitched_is_below_stitched() -> None:
    logits, styles = 3 * torch.randn(200, K).double(), beta_styles(200)
    x = torch.rand(200).double()
    expected, exact = (d(logits, styles).log_prob(x) for d in (ExpectedStitched, Stitched))
    assert (expected < exact).all()
    by_hand = (logits.softmax(-1) * styles.log_prob(x.unsqueeze(-1))).sum(-1)
    torch.testing.assert_close(expected, by_hand)


def test_expected_stitched_is_exact_where_the_label_is_certain() -> None:
    styles, x = beta_styles(K), torch.rand(K).double()
    logits = torch.where(torch.eye(K, dtype=torch.bool), 0.0, -1000.0).double()
    expected, exact = (d(logits, styles).log_prob(x) for d in (ExpectedStitched, Stitched))
    torch.testing.assert_close(expected, exact)


# --- Products of Gaussians ------------------------------------------------------------------------


def test_product_of_normals_is_the_posterior_of_a_linear_gaussian_pair() -> None:
    m, s, z, t = torch.tensor([0.4, 1.5, -1.1, 0.6], dtype=torch.float64)
    posterior = product_of_normals(dist.Normal(m, s), dist.Normal(z, t))
    gain = s**2 / (s**2 + t**2)  # Kalman's form
    assert posterior.loc == pytest.approx((m + gain * (z - m)).item())
    assert posterior.scale == pytest.approx(((1 - gain) * s**2).sqrt().item())
    grid = torch.linspace(-10, 10, 20_001).double()
    joint = (dist.Normal(m, s).log_prob(grid) + dist.Normal(grid, t).log_prob(z)).exp()
    weight = joint / joint.sum()
    mean = (weight * grid).sum()
    assert posterior.loc == pytest.approx(mean.item(), abs=1e-6)
    assert posterior.variance == pytest.approx((weight * (grid - mean) ** 2).sum().item(), abs=1e-6)


normals = st.builds(
    lambda loc, scale: dist.Normal(torch.tensor(loc).double(), torch.tensor(scale).double()),
    st.floats(-100, 100),
    st.floats(0.01, 100),
)


@settings(derandomize=True, deadline=None)
@given(a=normals, b=normals)
def test_product_of_normals_is_symmetric_adds_precisions_and_lies_between(
    a: dist.Normal, b: dist.Normal
) -> None:
    one, other = product_of_normals(a, b), product_of_normals(b, a)
    torch.testing.assert_close(one.loc, other.loc)
    torch.testing.assert_close(one.scale, other.scale)
    torch.testing.assert_close(1 / one.variance, 1 / a.variance + 1 / b.variance)
    low, high = sorted([float(a.loc), float(b.loc)])
    assert low - 1e-6 <= one.loc <= high + 1e-6


def test_product_of_normals_broadcasts() -> None:
    a, b = dist.Normal(torch.zeros(3, 1), 1.0), dist.Normal(torch.zeros(5), torch.ones(5))
    assert product_of_normals(a, b).batch_shape == (3, 5)


# --- The relaxed label ----------------------------------------------------------------------------


def test_exp_relaxed_categorical_is_finite_where_the_one_hot_underflows() -> None:
    logits = torch.tensor([200.0, -200.0, 0.0, -200.0], requires_grad=True)
    d = ExpRelaxedCategorical(torch.tensor(0.1), logits=logits)
    log_y = d.rsample((50,))
    assert (log_y.exp() == 0).any(), "the one-hot does not underflow here"
    log_prob = d.log_prob(log_y)
    assert log_y.isfinite().all()
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_exp_relaxed_categorical_is_a_pyro_site_of_relaxed_one_hots() -> None:
    logits, temperature = torch.randn(K).double(), torch.tensor(0.7).double()
    with pyro.plate("pixels", 6):
        log_y = pyro.sample("y", ExpRelaxedCategorical(temperature, logits=logits))
    assert log_y.shape == (6, K)
    torch.testing.assert_close(log_y.logsumexp(-1), torch.zeros(6).double())
    # Its density is that of the one-hot times the change of variables, |dy / dlog y|.
    one_hot = torch.distributions.RelaxedOneHotCategorical(temperature, logits=logits)
    ours = ExpRelaxedCategorical(temperature, logits=logits).log_prob(log_y)
    torch.testing.assert_close(ours, one_hot.log_prob(log_y.exp()) + log_y.sum(-1))
