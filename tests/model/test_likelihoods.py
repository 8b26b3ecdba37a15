"""Likelihoods of a pixel against quadrature and torch's own distributions."""

import itertools
import math

import pyro
import pytest
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import AffineTransform, Beta, TransformedDistribution

from pyro_stitchnet.model.likelihoods import (
    FAMILIES,
    GREY_LEVELS,
    DiscretisedLogistic,
    FlooredBeta,
    InteriorBeta,
)

LEVELS = torch.linspace(0, 1, GREY_LEVELS, dtype=torch.float64)
ENDS_AND_BETWEEN = torch.cat([LEVELS.float(), torch.tensor([1e-8, 1e-4, 0.1234, 1 - 1e-7])])

every_family = pytest.mark.parametrize("family", FAMILIES)


def total(d: TorchDistribution, weight: Tensor | float = 1.0) -> Tensor:
    """The integral of weight(x) p(x): a sum over levels for masses, quadrature for densities."""
    if isinstance(d, DiscretisedLogistic):
        return (weight_on(weight, LEVELS) * d.log_prob(LEVELS).exp()).sum()
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    return torch.trapezoid(weight_on(weight, x) * d.log_prob(x).exp(), x)


def weight_on(weight: Tensor | float, x: Tensor) -> Tensor:
    return x if isinstance(weight, Tensor) else weight * torch.ones_like(x)


X = torch.empty(0)  # `total(d, X)` is the mean


def doubles(*values: float) -> list[Tensor]:
    return [torch.tensor(v, dtype=torch.float64) for v in values]


# --- Every family ---------------------------------------------------------------------------------


@every_family
def test_log_prob_is_finite_on_the_closed_interval_for_any_parameters(family: str) -> None:
    for a, b in itertools.product([-30.0, -3.0, 0.0, 3.0, 30.0], repeat=2):
        maps = [torch.tensor(v, requires_grad=True) for v in (a, b)]
        log_prob = FAMILIES[family](*maps).log_prob(ENDS_AND_BETWEEN)
        assert log_prob.dtype == torch.float32
        assert log_prob.isfinite().all(), (a, b)
        for gradient in torch.autograd.grad(log_prob.sum(), maps):
            assert gradient.isfinite(), (a, b)


@every_family
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_gradients_reach_both_maps(family: str, x: float) -> None:
    a, b = (torch.full((3, 5), v, requires_grad=True) for v in (0.5, 0.7))
    FAMILIES[family](a, b).log_prob(torch.full((3, 5), x)).sum().backward()
    for map_ in (a, b):
        assert map_.grad is not None
        assert (map_.grad != 0).all()


@every_family
def test_probabilities_add_up_to_one(family: str) -> None:
    for a, b in itertools.product([1.5, 2.0, 3.0], repeat=2):  # no mass near the ends
        assert total(FAMILIES[family](*doubles(a, b))) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("a", [-30.0, -2.0, 0.0, 5.0, 30.0])
@pytest.mark.parametrize("b", [-30.0, 0.0, 30.0])
def test_masses_of_the_discretised_logistic_add_up_to_one_exactly(a: float, b: float) -> None:
    family = FAMILIES["discretised-logistic"]
    assert total(family(*doubles(a, b))) == pytest.approx(1, abs=1e-12)
    single = family(torch.tensor(a), torch.tensor(b)).log_prob(LEVELS.float())
    assert single.exp().sum() == pytest.approx(1, abs=2e-4)


@every_family
@pytest.mark.parametrize("parameters", [(0.5, 0.7), (2.0, 1.0), (-30.0, -30.0), (30.0, -30.0)])
def test_samples_and_mean_are_grey_values(family: str, parameters: tuple[float, float]) -> None:
    a, b = (torch.full((3, 5), v) for v in parameters)
    d = FAMILIES[family](a, b)
    sample = d.sample(torch.Size([50]))
    assert sample.shape == (50, 3, 5)
    for grey in (sample, d.mean):
        assert grey.dtype == torch.float32
        assert ((grey >= 0) & (grey <= 1)).all()
    assert d.mean.shape == d.batch_shape == (3, 5)


@every_family
def test_samples_follow_the_probabilities(family: str) -> None:
    n = 20_000
    for a, b in [(1.5, 2.0), (3.0, 1.0)]:
        d, exact = FAMILIES[family](torch.tensor(a), torch.tensor(b)), FAMILIES[family]
        sample = d.sample(torch.Size([n]))
        expected = total(exact(*doubles(a, b)), X)
        assert sample.mean() == pytest.approx(float(expected), abs=5 * float(sample.std()) / n**0.5)


@pytest.mark.parametrize("family", ["beta", "floored-beta", "bounded-beta"])
def test_the_mean_is_that_of_the_density(family: str) -> None:
    for a, b in [(1.5, 2.0), (3.0, 1.0)]:
        d = FAMILIES[family](*doubles(a, b))
        # A stretched Beta has a little of its mass outside [0, 1].
        assert d.mean == pytest.approx(float(total(d, X)), abs=2e-3)


@every_family
def test_families_broadcast_in_a_plate(family: str) -> None:
    d = FAMILIES[family](torch.tensor(0.5), torch.tensor(0.7))
    with pyro.plate("pixels", 6):
        value = pyro.sample("x", d)
    assert value.shape == (6,)
    assert torch.equal(d.expand(torch.Size([6])).log_prob(value), d.log_prob(value))


# --- Single families ------------------------------------------------------------------------------


def test_interior_beta_is_a_beta_whose_interval_is_stretched() -> None:
    a, b, inset = torch.tensor([0.4, 2.0, 7.0]), torch.tensor([3.0, 0.6, 1.0]), InteriorBeta.inset
    stretch = AffineTransform(-inset / (1 - 2 * inset), 1 / (1 - 2 * inset))
    torchs = TransformedDistribution(Beta(a, b), [stretch], validate_args=False)
    ours = InteriorBeta(a, b)
    for x in torch.tensor([0.0, 0.01, 0.5, 0.99, 1.0]):
        torch.testing.assert_close(ours.log_prob(x), torchs.log_prob(x))


@pytest.mark.parametrize("family", ["beta", "bounded-beta"])
def test_no_parameters_earn_more_than_all_probability(family: str) -> None:
    for a, b in itertools.product([-30.0, -8.0, -3.0, 0.0, 3.0], repeat=2):
        assert total(FAMILIES[family](*doubles(a, b))) <= 1 + 2e-3


def test_floored_beta_adds_its_floor_to_the_density() -> None:
    a, b = torch.tensor([2.0, 40.0]).double(), torch.tensor([3.0, 60.0]).double()
    x = torch.linspace(0.05, 0.95, 19).double().unsqueeze(-1)
    density = torch.distributions.Beta(a, b).log_prob(x).exp()
    torch.testing.assert_close(FlooredBeta(a, b).log_prob(x), (density + 1e-7).log())


def test_far_from_a_floored_style_there_is_no_gradient() -> None:
    a = torch.tensor(500.0, requires_grad=True)
    log_prob = FlooredBeta(a, torch.tensor(500.0)).log_prob(torch.tensor(0.01))
    log_prob.backward()
    assert log_prob.item() == pytest.approx(math.log(1e-7), abs=1e-6)
    assert a.grad == 0


def test_bounded_beta_keeps_its_bounds() -> None:
    a, b = torch.meshgrid(torch.linspace(-30, 30, 31), torch.linspace(-30, 30, 31), indexing="ij")
    d = FAMILIES["bounded-beta"](a, b)
    assert isinstance(d, InteriorBeta)
    precision = d.concentration1 + d.concentration0
    assert precision.min() == pytest.approx(4, rel=1e-4)
    assert precision.max() == pytest.approx(200, rel=1e-4)
    mean = d.concentration1 / precision
    assert mean.min() == pytest.approx(0.01, rel=1e-3)
    assert mean.max() == pytest.approx(0.99, rel=1e-3)


def test_discretised_logistic_masses_are_differences_of_the_cumulative_distribution() -> None:
    loc, scale = doubles(0.7, 0.05)
    edges = (torch.arange(1, GREY_LEVELS).double() - 0.5) / (GREY_LEVELS - 1)
    below = torch.sigmoid((edges - loc) / scale)
    mass = torch.diff(below, prepend=torch.zeros(1).double(), append=torch.ones(1).double())
    torch.testing.assert_close(DiscretisedLogistic(loc, scale).log_prob(LEVELS).exp(), mass)


def test_discretised_logistic_scores_the_nearest_grey_level() -> None:
    d, level = DiscretisedLogistic(torch.tensor(0.4), torch.tensor(0.02)), torch.tensor(100 / 255)
    for shift in (-0.4, 0.4):
        assert torch.equal(d.log_prob(level + shift / 255), d.log_prob(level))
    assert d.log_prob(level + 0.6 / 255) != d.log_prob(level)


def test_discretised_logistic_draws_grey_levels() -> None:
    draws = (
        DiscretisedLogistic(torch.tensor(0.1), torch.tensor(0.1)).sample(torch.Size([5000])) * 255
    )
    torch.testing.assert_close(draws, draws.round(), rtol=0, atol=1e-4)
    black = 1 / (1 + math.exp((0.1 - 0.5 / 255) / 0.1))  # all below half the first level
    assert (draws == 0).float().mean() == pytest.approx(black, abs=0.03)
