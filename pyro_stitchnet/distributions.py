"""What a pixel's grey value is drawn from: families for one style, and the stitching of styles.

Shapes: a *style* distribution has batch shape (..., K), one entry a label; stitching over the K
labels leaves (...). Everything here is float32, whatever precision the networks run in.
"""

import math
from collections.abc import Callable, Mapping
from typing import Self

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.relaxed_categorical import (
    ExpRelaxedCategorical as TorchExpRelaxedCategorical,
)
from torch.nn import functional

from pyro_stitchnet.distributed import own_rows, processes

__all__ = [
    "FAMILIES",
    "FROM_MOMENTS",
    "DiscretisedLogistic",
    "ExpRelaxedCategorical",
    "ExpectedStitched",
    "FlooredBeta",
    "InteriorBeta",
    "Picked",
    "SharedNormal",
    "Stitched",
    "pick",
    "product_of_normals",
]

GREY_LEVELS = 256


def product_of_normals(a: dist.Normal, b: dist.Normal) -> dist.Normal:
    """The precision-weighted product of two diagonal Gaussians (the ladder VAE's posterior).

    Precision: the sum of both; mean: the precision-weighted mean. Shapes broadcast.
    """
    precision_a, precision_b = a.scale**-2, b.scale**-2
    variance = 1 / (precision_a + precision_b)
    return dist.Normal(variance * (precision_a * a.loc + precision_b * b.loc), variance.sqrt())


class SharedNormal(dist.Normal):
    """A Gaussian over the slices of a batch, drawn as one for all training processes.

    Each process draws for all, from generators that are alike, and keeps its own rows: so two
    processes draw what one would for both their slices.
    """

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw, with a gradient."""
        shape = self._extended_shape(sample_shape)
        whole = shape[0] * processes()
        noise = torch.randn(whole, *shape[1:], dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + noise[own_rows(whole)] * self.scale


class InteriorBeta(TorchDistribution):
    """A Beta for grey values in the closed [0, 1]: scored half an 8-bit step inside the ends.

    A Beta density is 0 or infinite at 0 and at 1, which slices do hold. torch's Beta interleaves
    both parameters in a Dirichlet and takes a logarithm for each style; this takes one a pixel, in
    half the time.
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
        """Log-density at ``value`` moved into [inset, 1 - inset]."""
        a, b, x = self.concentration1, self.concentration0, value.clamp(self.inset, 1 - self.inset)
        log_norm = torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)
        return (a - 1) * x.log() + (b - 1) * torch.log1p(-x) - log_norm

    @property
    def mean(self) -> Tensor:
        """alpha / (alpha + beta)."""
        return self.concentration1 / (self.concentration1 + self.concentration0)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Grey values, by torch's Beta."""
        torchs = torch.distributions.Beta(
            self.concentration1, self.concentration0, validate_args=False
        )
        return torchs.rsample(sample_shape)


class FlooredBeta(InteriorBeta):
    """The reference code's Beta: x in [1e-7, 1 - 1e-7], and 1e-7 added to the density.

    float32 cannot tell 1 - 1e-7 from the number next to 1, so the log-density there is that of the
    nearest float32.
    """

    inset = 1e-7

    def log_prob(self, value: Tensor) -> Tensor:
        """log(density + 1e-7): far from the style's range the gradient is zero."""
        log_density = super().log_prob(value)
        return torch.logaddexp(log_density, torch.full_like(log_density, math.log(1e-7)))


class DiscretisedLogistic(TorchDistribution):
    """A logistic over 8-bit grey levels k / 255: log_prob is a log-mass, not a density.

    The end levels take the tails, so the mass over the 256 levels is one.
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
        # The logs of sigmoid(u) and of 1 - sigmoid(l), u and l the level's upper and lower edge.
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

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Grey levels, a logistic draw rounded and clipped."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, device=self.loc.device).clamp(1e-6, 1 - 1e-6)
        draw = self.loc + self.scale * torch.logit(uniform)
        return (draw.clamp(0, 1) * (GREY_LEVELS - 1)).round() / (GREY_LEVELS - 1)


def _beta(a: Tensor, b: Tensor) -> TorchDistribution:
    """alpha and beta free and positive: the article's."""
    return InteriorBeta(functional.softplus(a) + 1e-3, functional.softplus(b) + 1e-3)


def _floored_beta(a: Tensor, b: Tensor) -> TorchDistribution:
    """alpha and beta = ReLU + 1e-7: the reference code's."""
    return FlooredBeta(functional.relu(a) + 1e-7, functional.relu(b) + 1e-7)


def _bounded_beta(a: Tensor, b: Tensor) -> TorchDistribution:
    """Mean in (0.01, 0.99), precision alpha + beta in (4, 200): no density grows without limit."""
    mean = 0.01 + 0.98 * torch.sigmoid(a)
    precision = 4 * torch.exp(math.log(50) * torch.sigmoid(b))
    return InteriorBeta(mean * precision, (1 - mean) * precision)


def _discretised_logistic(a: Tensor, b: Tensor) -> TorchDistribution:
    """Location in (0, 1), scale from half a grey level to 0.3."""
    smallest, largest = math.log(0.5 / (GREY_LEVELS - 1)), math.log(0.3)
    log_scale = smallest + (largest - smallest) * torch.sigmoid(b)
    return DiscretisedLogistic(torch.sigmoid(a), log_scale.exp())


FAMILIES: Mapping[str, Callable[[Tensor, Tensor], TorchDistribution]] = {
    "beta": _beta,
    "floored-beta": _floored_beta,
    "bounded-beta": _bounded_beta,
    "discretised-logistic": _discretised_logistic,
}
"""Likelihoods by name: two unconstrained maps to the distribution of a style."""


def _bounded_beta_of(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of a bounded Beta of these moments, as nearly as its bounds allow."""
    inner = ((mean - 0.01) / 0.98).clamp(0.01, 0.99)
    precision = (mean * (1 - mean) / deviation.square().clamp_min(1e-6) - 1).clamp(5, 150)
    return torch.logit(inner), torch.logit((precision / 4).log() / math.log(50))


def _discretised_logistic_of(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """The maps of a discretised logistic of these moments, as nearly as its bounds allow."""
    smallest, largest = math.log(0.5 / (GREY_LEVELS - 1)), math.log(0.3)
    log_scale = (deviation * math.sqrt(3) / math.pi).clamp_min(1e-6).log()
    inner = ((log_scale - smallest) / (largest - smallest)).clamp(0.01, 0.99)
    return torch.logit(mean.clamp(0.01, 0.99)), torch.logit(inner)


FROM_MOMENTS: Mapping[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "bounded-beta": _bounded_beta_of,
    "discretised-logistic": _discretised_logistic_of,
}
"""By likelihood: mean and standard deviation to the two maps of a style."""


def pick(values: Tensor, y: Tensor) -> Tensor:
    """The entry of ``values`` (..., K) that ``y`` (...) names; the dots broadcast."""
    if y.dim() == values.dim() and len(y) == y.numel():  # enumerated: the same for all pixels
        return values.movedim(-1, 0).index_select(0, y.flatten())
    shape = torch.broadcast_shapes(values.shape[:-1], y.shape)
    values = values.expand(*shape, values.shape[-1])
    return values.gather(-1, y.expand(shape).unsqueeze(-1)).squeeze(-1)


class Picked(TorchDistribution):
    """Phi(y, b, h, g, c): each pixel drawn from the style that its label ``y`` picks."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.unit_interval

    def __init__(
        self, y: Tensor, styles: TorchDistribution, validate_args: bool | None = None
    ) -> None:
        """Take labels ``y`` (...) and ``styles`` with batch shape (..., K); both broadcast."""
        self.y, self.styles = y.long(), styles
        shape = torch.broadcast_shapes(y.shape, styles.batch_shape[:-1])
        super().__init__(shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "Picked":
        """The same distribution, broadcast."""
        new = Picked(self.y, self.styles, validate_args=False)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """log p_y(value) per pixel."""
        return pick(self.styles.log_prob(value.unsqueeze(-1)), self.y)

    @property
    def mean(self) -> Tensor:
        """The mean of the picked style."""
        return pick(self.styles.mean, self.y).expand(self.batch_shape)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Grey values drawn from the picked style."""
        # Expanded first: pixels that share a style still draw from it independently.
        styles = self.styles.expand((*self.batch_shape, self.styles.batch_shape[-1]))
        return pick(styles.sample(sample_shape), self.y.expand(self.batch_shape))


class Stitched(TorchDistribution):
    """The picture with its labels summed out: log SUM_{k in A} pi_k p_k(x), per pixel.

    ``A`` is the set of labels that the pixel's annotation allows. One label is the labelled
    likelihood log pi_y + log p_y(x), all K the unlabelled mixture (eq. 7-9), anything between an
    annotation that tells less. For a proper set it is the joint log-probability of ``x`` and of
    the label lying in ``A``, so it integrates over x to the probability of ``A``, not to one.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.unit_interval

    def __init__(
        self,
        logits: Tensor,
        styles: TorchDistribution,
        allowed: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        """Stitch ``styles``.

        Args:
            logits: label logits (..., K); normalised here.
            styles: the K styles' distributions, batch shape (..., K).
            allowed: labels that each pixel may have, bool (..., K); ``None`` allows all.
            validate_args: as in :class:`torch.distributions.Distribution`.
        """
        self.log_pi = logits.movedim(-1, 0).log_softmax(0).movedim(0, -1)
        self.styles, self.allowed = styles, allowed
        shape = torch.broadcast_shapes(logits.shape, styles.batch_shape)[:-1]
        super().__init__(shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> Self:
        """The same distribution, broadcast."""
        log_pi = self.log_pi.expand(*batch_shape, self.log_pi.shape[-1])
        return self._replaced(log_pi, self.allowed, torch.Size(batch_shape))

    def given(self, allowed: Tensor | None) -> Self:
        """The same picture, where each pixel's label lies in ``allowed``, bool (..., K)."""
        return self._replaced(self.log_pi, allowed, self.batch_shape)

    def _replaced(self, log_pi: Tensor, allowed: Tensor | None, shape: torch.Size) -> Self:
        """Without normalising once more."""
        new = self.__new__(type(self))
        new.log_pi, new.styles, new.allowed = log_pi, self.styles, allowed
        super(Stitched, new).__init__(shape, validate_args=False)
        return new

    def joint(self, value: Tensor) -> Tensor:
        """log pi_k + log p_k(value) for every label, -inf where it is not allowed: (..., K)."""
        scores = self.log_pi + self.styles.log_prob(value.unsqueeze(-1))
        return scores if self.allowed is None else scores.masked_fill(~self.allowed, -math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        """log SUM_{k in A} pi_k p_k(value)."""
        return self.joint(value).logsumexp(-1)

    def responsibilities(self, value: Tensor) -> Tensor:
        """p(y = k | x, z, y in A), by Bayes' rule through the styles: (..., K)."""
        return self.joint(value).softmax(-1)

    @property
    def mean(self) -> Tensor:
        """SUM_k pi_k E_k[x], labels unknown."""
        return (self.log_pi.exp() * self.styles.mean).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """A label from pi, then a grey value from its style."""
        y = dist.Categorical(logits=self.log_pi).sample(sample_shape)
        return Picked(y, self.styles.expand((*y.shape, self.log_pi.shape[-1]))).sample()


class ExpectedStitched(Stitched):
    """The reference code's reconstruction: SUM_k pi_k log p_k(x), for labelled pixels too.

    A lower bound of log SUM_k pi_k p_k(x) whose best styles all fit x, whatever the label:
    the suspect for the article's failure on unlabelled slices. ``allowed`` does not enter.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-likelihood expected under pi."""
        return (self.log_pi.exp() * self.styles.log_prob(value.unsqueeze(-1))).sum(-1)


class ExpRelaxedCategorical(TorchExpRelaxedCategorical, TorchDistributionMixin):
    """The log of a relaxed one-hot label (Gumbel-softmax).

    In log space, since the relaxed one-hot itself underflows to 0 and its density to NaN.
    """
