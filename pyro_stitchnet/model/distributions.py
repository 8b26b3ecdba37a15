"""The stitching of styles, and the Gaussians of the ladder.

Shapes: the distribution of the styles has batch shape (..., K), one entry per label; stitching over
the K labels gives (...). All values are float32, at any precision of the networks.
"""

import math
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

from pyro_stitchnet.runtime.distributed import own_rows, processes

__all__ = [
    "ExpRelaxedCategorical",
    "ExpectedStitched",
    "Picked",
    "SharedNormal",
    "Stitched",
    "pick",
    "product_of_normals",
    "standard_score",
]

# Some likelihoods allow standard deviations below one grey level.
LEAST_DEVIATION = 1 / 255
LARGEST_SCORE = 4.0  # standard deviations; an outlier would become black or white


def product_of_normals(a: dist.Normal, b: dist.Normal) -> dist.Normal:
    """Return the normalised product of two diagonal Gaussians, the ladder VAE's posterior.

    Its precision is the sum of both precisions, its mean the precision-weighted mean. Shapes
    broadcast.

    Examples:
        >>> one = torch.ones(())
        >>> product = product_of_normals(dist.Normal(0 * one, one), dist.Normal(4 * one, one))
        >>> product.loc.item(), round(product.variance.item(), 3)
        (2.0, 0.5)
    """
    precision_a, precision_b = a.scale**-2, b.scale**-2
    variance = 1 / (precision_a + precision_b)
    return dist.Normal(variance * (precision_a * a.loc + precision_b * b.loc), variance.sqrt())


class SharedNormal(dist.Normal):
    """A Gaussian over the slices of a batch that is divided among training processes.

    Every process draws for the whole batch, from generators in the same state, and keeps the rows
    of its own slices. The draws therefore do not depend on the number of processes.
    """

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Draw, with a gradient."""
        shape = self._extended_shape(sample_shape)
        whole = shape[0] * processes()
        noise = torch.randn(whole, *shape[1:], dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + noise[own_rows(whole)] * self.scale


def pick(values: Tensor, y: Tensor) -> Tensor:
    """Return the entry of ``values`` (..., K) at index ``y`` (...); the dots broadcast."""
    if y.dim() == values.dim() and len(y) == y.numel():  # enumerated: one label for all pixels
        return values.movedim(-1, 0).index_select(0, y.flatten())
    shape = torch.broadcast_shapes(values.shape[:-1], y.shape)
    values = values.expand(*shape, values.shape[-1])
    return values.gather(-1, y.expand(shape).unsqueeze(-1)).squeeze(-1)


def standard_score(x: Tensor, mean: Tensor, deviation: Tensor, p: Tensor) -> Tensor:
    """Return how many standard deviations pixels lie above the style of their label, (...).

    Args:
        x: grey values (...).
        mean: of each style, (..., K).
        deviation: of each style, (..., K).
        p: probability of each label, (..., K); the score is the expectation over labels.
    """
    scores = (x.unsqueeze(-1) - mean) / deviation.clamp_min(LEAST_DEVIATION)
    return (p * scores.clamp(-LARGEST_SCORE, LARGEST_SCORE)).sum(-1)


class Picked(TorchDistribution):
    """Phi(y, b, h, g, c): each pixel is drawn from the style of its label ``y``.

    Examples:
        >>> styles = dist.Beta(torch.tensor([1.0, 5.0, 9.0, 17.0]), torch.tensor([19.0, 15, 11, 3]))
        >>> Picked(torch.tensor([3, 0]), styles).mean
        tensor([0.8500, 0.0500])
    """

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
    """p(x, y in A | z) with y summed out: log SUM_{k in A} pi_k p_k(x) for every pixel.

    ``A`` is the set of labels that a pixel may have. With one label it is the labelled likelihood
    log pi_y + log p_y(x), with all K labels the unlabelled mixture (eq. 7-9), with other sets the
    likelihood of a partial label. Over x it integrates to the probability of ``A``.

    Examples:
        >>> styles = dist.Beta(torch.tensor([1.0, 5.0, 9.0, 17.0]), torch.tensor([19.0, 15, 11, 3]))
        >>> picture = Stitched(torch.zeros(4), styles)
        >>> picture.responsibilities(torch.tensor(0.45)).round(decimals=2)
        tensor([0.0000, 0.1300, 0.8600, 0.0000])
        >>> infection = picture.given(torch.tensor([False, False, True, True]))
        >>> infection.responsibilities(torch.tensor(0.45)).round(decimals=2)
        tensor([0., 0., 1., 0.])
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
        """The same distribution with another set of allowed labels, bool (..., K)."""
        return self._replaced(self.log_pi, allowed, self.batch_shape)

    def _replaced(self, log_pi: Tensor, allowed: Tensor | None, shape: torch.Size) -> Self:
        """Make a copy without normalising again."""
        new = self.__new__(type(self))
        new.log_pi, new.styles, new.allowed = log_pi, self.styles, allowed
        super(Stitched, new).__init__(shape, validate_args=False)
        return new

    def joint(self, value: Tensor) -> Tensor:
        """log pi_k + log p_k(value) of every label, (..., K); -inf where it is not allowed."""
        scores = self.log_pi + self.styles.log_prob(value.unsqueeze(-1))
        return scores if self.allowed is None else scores.masked_fill(~self.allowed, -math.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        """log SUM_{k in A} pi_k p_k(value)."""
        return self.joint(value).logsumexp(-1)

    def responsibilities(self, value: Tensor) -> Tensor:
        """p(y = k | x, z, y in A) by Bayes' rule through the styles, (..., K)."""
        return self.joint(value).softmax(-1)

    def styles_given(self, value: Tensor, p: Tensor) -> Tensor:
        """The styles of pixels whose grey value is known, (..., K), in [0, 1].

        The four styles of a pixel are as many standard deviations from their means as the pixel is
        from the mean of its own style. They show the slice's vessels and noise, and the style of a
        certain label is the slice itself. The article draws the styles independently given z. Only
        one of them is seen at each pixel, so that the evidence is the same either way.

        Args:
            value: grey values (...).
            p: probability of each label, (..., K).
        """
        mean, deviation = self.styles.mean, self.styles.variance.sqrt()
        score = standard_score(value, mean, deviation, p).unsqueeze(-1)
        return (mean + score * deviation).clamp(0, 1)

    @property
    def mean(self) -> Tensor:
        """SUM_k pi_k E_k[x], over all labels."""
        return (self.log_pi.exp() * self.styles.mean).sum(-1)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Grey values: a label from pi, then a value from its style."""
        y = dist.Categorical(logits=self.log_pi).sample(sample_shape)
        return Picked(y, self.styles.expand((*y.shape, self.log_pi.shape[-1]))).sample()


class ExpectedStitched(Stitched):
    """The reconstruction of the authors' program: SUM_k pi_k log p_k(x), for labelled pixels too.

    A lower bound of log SUM_k pi_k p_k(x). It is highest where all styles fit x, for every
    label, which may explain the article's failure on unlabelled slices. ``allowed`` is ignored.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-likelihood expected under pi."""
        return (self.log_pi.exp() * self.styles.log_prob(value.unsqueeze(-1))).sum(-1)


class ExpRelaxedCategorical(TorchExpRelaxedCategorical, TorchDistributionMixin):
    """The log of a relaxed one-hot label (Gumbel-softmax).

    The relaxed one-hot label itself can underflow to 0, which makes its density NaN.
    """
