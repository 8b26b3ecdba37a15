"""The distributions of a pixel's grey value under one style, by name.

Shapes: batch shape (..., K), one entry per label. All values are float32, at any precision of the
networks.
"""

import math
from collections.abc import Callable, Mapping

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn import functional

__all__ = [
    "FAMILIES",
    "FROM_MOMENTS",
    "DiscretisedLogistic",
    "FlooredBeta",
    "InteriorBeta",
    "check_likelihood",
]

GREY_LEVELS = 256

# Bounds of a bounded Beta: its mean is at least this far from 0 and 1, and its precision
# alpha + beta lies between the least and exp(range) times it.
LEAST_MEAN, LEAST_PRECISION, PRECISION_RANGE = 0.01, 4, math.log(50)

# The log of the smallest and of the largest scale of a discretised logistic; the smallest is half a
# grey level.
LOG_SCALES = math.log(0.5 / (GREY_LEVELS - 1)), math.log(0.3)


class InteriorBeta(TorchDistribution):
    """A Beta for grey values in [0, 1], both ends included.

    A Beta density is 0 or infinite at 0 and at 1, which are common in slices. Here the unit
    interval of the Beta is stretched: a grey value x is ``inset + (1 - 2 inset) x`` of it, half an
    8-bit step inside at both ends. With the factor of that change of variables the density
    integrates to at most 1 over [0, 1]. torch's Beta takes logarithms of the value for each style;
    this class takes them once per pixel, in half the time.
    """

    arg_constraints = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }
    support = constraints.unit_interval
    has_rsample = True

    inset = 0.5 / (GREY_LEVELS - 1)

    def __init__(
        self, concentration1: Tensor, concentration0: Tensor, validate_args: bool | None = None
    ) -> None:
        """Take alpha and beta, which broadcast."""
        both = torch.broadcast_tensors(concentration1, concentration0)
        self.concentration1, self.concentration0 = both
        super().__init__(both[0].shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "InteriorBeta":
        """The same distribution, broadcast."""
        a, b = self.concentration1.expand(batch_shape), self.concentration0.expand(batch_shape)
        return type(self)(a, b, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density at a grey value in [0, 1]."""
        width = 1 - 2 * self.inset
        return self._log_density(self.inset + width * value) + math.log(width)

    @property
    def mean(self) -> Tensor:
        """alpha / (alpha + beta) as a grey value, clipped to [0, 1]."""
        return self._as_grey(self._beta.mean)

    @property
    def variance(self) -> Tensor:
        """The variance of the Beta, in grey values."""
        return self._beta.variance / (1 - 2 * self.inset) ** 2

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Grey values, drawn by torch's Beta and clipped to [0, 1]."""
        return self._as_grey(self._beta.rsample(sample_shape))

    @property
    def _beta(self) -> torch.distributions.Beta:
        both = self.concentration1, self.concentration0
        return torch.distributions.Beta(*both, validate_args=False)

    def _as_grey(self, stretched: Tensor) -> Tensor:
        return ((stretched - self.inset) / (1 - 2 * self.inset)).clamp(0, 1)

    def _log_density(self, x: Tensor) -> Tensor:
        """The Beta's log-density at x in (0, 1)."""
        a, b = self.concentration1, self.concentration0
        log_norm = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        return (a - 1) * x.log() + (b - 1) * torch.log1p(-x) - log_norm


class FlooredBeta(InteriorBeta):
    """The Beta of the authors' program: x in [1e-7, 1 - 1e-7], and 1e-7 added to the density.

    In float32, 1 - 1e-7 is rounded to the number next to 1. The density is not normalised.
    """

    inset = 0.0

    def log_prob(self, value: Tensor) -> Tensor:
        """log(density + 1e-7); its gradient vanishes far from the mean of the style."""
        log_density = self._log_density(value.clamp(1e-7, 1 - 1e-7))
        return torch.logaddexp(log_density, torch.full_like(log_density, math.log(1e-7)))


class DiscretisedLogistic(TorchDistribution):
    """A logistic over 8-bit grey levels k / 255: log_prob is a log-mass, not a density.

    The first and the last level include the tails, so that the masses of the 256 levels sum to 1.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.unit_interval
    has_rsample = False

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        """Take location and scale in grey units ([0, 1]), of one shape."""
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "DiscretisedLogistic":
        """The same distribution, broadcast."""
        return DiscretisedLogistic(
            self.loc.expand(batch_shape), self.scale.expand(batch_shape), validate_args=False
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass of the grey level nearest to ``value``."""
        half = 0.5 / (GREY_LEVELS - 1)
        value = (value * (GREY_LEVELS - 1)).round() / (GREY_LEVELS - 1)
        # log sigmoid(u) and log(1 - sigmoid(l)) at the upper and lower edge u, l of the level.
        steepness = 1 / self.scale
        below = functional.logsigmoid((value + half - self.loc) * steepness)
        above = functional.logsigmoid((self.loc - value + half) * steepness)
        # log(sigmoid(u) - sigmoid(l)) = log(1 - e^(l-u)) + logsigmoid(u) + logsigmoid(-l)
        inside = torch.log(-torch.expm1(-2 * half * steepness)) + below + above
        return torch.where(value < half, below, torch.where(value > 1 - half, above, inside))

    @property
    def mean(self) -> Tensor:
        """The location, clipped to [0, 1]: the mean of the untruncated logistic."""
        return self.loc.clamp(0, 1)

    @property
    def variance(self) -> Tensor:
        """scale^2 pi^2 / 3: that of the untruncated logistic."""
        return (self.scale * math.pi).square() / 3

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Grey levels: draws of a logistic, clipped and rounded."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, device=self.loc.device).clamp(1e-6, 1 - 1e-6)
        draw = self.loc + self.scale * torch.logit(uniform)
        return (draw.clamp(0, 1) * (GREY_LEVELS - 1)).round() / (GREY_LEVELS - 1)


def _beta(a: Tensor, b: Tensor) -> TorchDistribution:
    """The article's: alpha and beta are positive and unbounded."""
    return InteriorBeta(functional.softplus(a) + 1e-3, functional.softplus(b) + 1e-3)


def _floored_beta(a: Tensor, b: Tensor) -> TorchDistribution:
    """The authors' program: alpha and beta are ReLU + 1e-7."""
    return FlooredBeta(functional.relu(a) + 1e-7, functional.relu(b) + 1e-7)


def _bounded_beta(a: Tensor, b: Tensor) -> TorchDistribution:
    """Mean in (0.01, 0.99), precision alpha + beta in (4, 200), so that densities are bounded.

    Mean and precision are those of the stretched Beta, see :class:`InteriorBeta`.
    """
    mean = LEAST_MEAN + (1 - 2 * LEAST_MEAN) * torch.sigmoid(a)
    precision = LEAST_PRECISION * torch.exp(PRECISION_RANGE * torch.sigmoid(b))
    return InteriorBeta(mean * precision, (1 - mean) * precision)


def _discretised_logistic(a: Tensor, b: Tensor) -> TorchDistribution:
    """Location in (0, 1), scale from half a grey level to 0.3."""
    log_scale = LOG_SCALES[0] + (LOG_SCALES[1] - LOG_SCALES[0]) * torch.sigmoid(b)
    return DiscretisedLogistic(torch.sigmoid(a), log_scale.exp())


FAMILIES: Mapping[str, Callable[[Tensor, Tensor], TorchDistribution]] = {
    "beta": _beta,
    "floored-beta": _floored_beta,
    "bounded-beta": _bounded_beta,
    "discretised-logistic": _discretised_logistic,
}
"""Likelihoods by name: two unconstrained maps to the distribution of a style."""


def check_likelihood(name: str) -> None:
    """Raise ValueError if there is no likelihood of this name."""
    if name not in FAMILIES:
        raise ValueError(f"likelihood {name!r} is unknown; choose one of {', '.join(FAMILIES)}")


def _bounded_beta_of(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Maps for a bounded Beta of these moments, within its bounds."""
    inset, width = InteriorBeta.inset, 1 - 2 * InteriorBeta.inset
    mean, deviation = inset + width * mean, width * deviation  # of the stretched Beta
    inner = ((mean - LEAST_MEAN) / (1 - 2 * LEAST_MEAN)).clamp(0.01, 0.99)
    precision = (mean * (1 - mean) / deviation.square().clamp_min(1e-6) - 1).clamp(5, 150)
    return torch.logit(inner), torch.logit((precision / LEAST_PRECISION).log() / PRECISION_RANGE)


def _discretised_logistic_of(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Maps for a discretised logistic of these moments, within its bounds."""
    log_scale = (deviation * math.sqrt(3) / math.pi).clamp_min(1e-6).log()
    inner = ((log_scale - LOG_SCALES[0]) / (LOG_SCALES[1] - LOG_SCALES[0])).clamp(0.01, 0.99)
    return torch.logit(mean.clamp(0.01, 0.99)), torch.logit(inner)


FROM_MOMENTS: Mapping[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "bounded-beta": _bounded_beta_of,
    "discretised-logistic": _discretised_logistic_of,
}
"""By likelihood: from mean and standard deviation to the two maps of a style."""
