"""GGO or consolidation by grey relative to the slice's own lung and soft tissue.

The window of a CT image is often unknown, and an absolute grey value then says little. As in
unified segmentation (Ashburner & Friston, NeuroImage 2005), a slice has tissue levels of its own: l
of its healthy lung, and t of its soft tissue. A lesion k has the grey value ::

    x = l + r (t - l),    r ~ Normal(mean_k, deviation_k)

where x is the slice smoothed inside the infection.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_stitchnet.labels import BACKGROUND, HEALTHY, LESIONS
from pyro_stitchnet.model.likelihoods import GREY_LEVELS

__all__ = ["TissueLevels"]

SOFT_TISSUE = 0.5
"""Background is soft tissue where it is brighter, else air."""

USUAL_SHARE = 1 / 16
"""The usual level of a tissue counts as much as this share of a slice's pixels."""

PRIOR_MEAN = (0.28, 0.75)
PRIOR_DEVIATION = (0.2, 0.25)
"""Of r for GGO and consolidation, before any labelled slice is seen.

The means are near -600 and -185 HU, where lung has -860 and soft tissue 40.
"""

USUAL = (0.2, 0.8)
"""Levels of lung and soft tissue, in grey units, before any labelled slice is seen."""

PRIOR_SLICES = 10
"""Labelled slices that this prior is worth."""

FEWEST = 20
"""Pixels of a lesion from which a labelled slice counts."""

LEAST_CONTRAST = 0.1
"""The least difference of soft tissue from lung, in grey units."""

SMOOTHING = 1 / 128
"""Standard deviation of the smoothing, as a share of the slice's width."""

REACH = 4
"""Half-width of the kernel of the smoothing, in standard deviations."""


class TissueLevels(nn.Module):
    """The likelihood of GGO and consolidation given the slice's tissue levels.

    The levels of a slice are the medians of its tissues, drawn towards those of the labelled slices
    where few pixels show the tissue. Mean and deviation of r are averages over the labelled slices,
    with a prior that matters where these are few.

    Attributes:
        mean: of r for GGO and consolidation, (2,).
        deviation: of r, (2,).
        usual: l and t of the labelled slices, (2,).
    """

    mean: Tensor
    deviation: Tensor
    usual: Tensor

    def __init__(self) -> None:
        """Start at the prior; :meth:`fit` learns from labelled slices."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(PRIOR_MEAN))
        self.register_buffer("deviation", torch.tensor(PRIOR_DEVIATION))
        self.register_buffer("usual", torch.tensor(USUAL))

    @torch.no_grad()
    def fit(self, x: Tensor, allowed: Tensor) -> None:
        """Learn the levels of lesions from the pixels that have one label.

        Args:
            x: labelled slices (N, H, W) in [0, 1].
            allowed: labels that each pixel may have, bool (N, H, W, K).
        """
        p = (allowed & (allowed.sum(-1, keepdim=True) == 1)).float()
        levels, pixels = _levels(x, p)
        for tissue, counts in enumerate(pixels.unbind(-1)):
            if (enough := counts >= USUAL_SHARE * x[0].numel()).any():
                self.usual[tissue] = levels[enough, tissue].median()
        r = self._relative(x, p)
        for number, lesion in enumerate(LESIONS):
            inside = p[..., lesion].flatten(1)  # (N, pixels)
            seen = inside.sum(1) >= FEWEST
            self.mean[number] = _with_prior(r[seen], inside[seen], PRIOR_MEAN[number])
            squares = (r[seen] - self.mean[number]).square()
            variance = _with_prior(squares, inside[seen], PRIOR_DEVIATION[number] ** 2)
            self.deviation[number] = variance.sqrt()

    def forward(self, x: Tensor, p: Tensor) -> Tensor:
        """Return the log-likelihood of both lesions, (N, H, W, 2).

        Args:
            x: slices (N, H, W) in [0, 1].
            p: label probabilities (N, H, W, K); they say where the tissues and the infection are.
        """
        with torch.autocast(x.device.type, enabled=False):  # smoothing needs 32 bits
            r = self._relative(x.float(), p.float())
        distance = (r.unsqueeze(-1) - self.mean) / self.deviation
        return -distance.square() / 2 - self.deviation.log()

    def _relative(self, x: Tensor, p: Tensor) -> Tensor:
        """Return r of every pixel, (N, H, W), as if it were a lesion's."""
        levels, pixels = _levels(x, p)
        weight = pixels / (pixels + USUAL_SHARE * x[0].numel())
        lung, tissue = torch.lerp(self.usual.expand_as(levels), levels, weight).unbind(-1)
        inside = p[..., list(LESIONS)].sum(-1).clamp_min(1e-6)
        smooth = _smoothed(x * inside) / _smoothed(inside)
        contrast = (tissue - lung).clamp_min(LEAST_CONTRAST)
        return (smooth - lung[:, None, None]) / contrast[:, None, None]


def _with_prior(values: Tensor, inside: Tensor, prior: float) -> Tensor:
    """Average slices' means of values (N, H, W) over masks (N, pixels), and the prior's slices."""
    means = (values.flatten(1) * inside).sum(1) / inside.sum(1)
    return (PRIOR_SLICES * prior + means.sum()) / (PRIOR_SLICES + len(means))


def _levels(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Return the median grey of lung and soft tissue in every slice, and their pixels, (N, 2)."""
    likeliest = (p == p.amax(-1, keepdim=True)) & (p > 0)
    lung = likeliest[..., HEALTHY]
    tissue = likeliest[..., BACKGROUND] & (x > SOFT_TISSUE)
    masks = torch.stack([lung, tissue], 1).flatten(2).float()  # (N, 2, pixels)
    return _median(x.flatten(1).unsqueeze(1), masks), masks.sum(-1)


def _median(x: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted median of values in [0, 1] over the last axis, to an 8-bit step.

    By a histogram, which needs no sorting; 0 where all weights are 0.
    """
    bins = (x * (GREY_LEVELS - 1)).round().long().expand(weights.shape)
    counts = weights.new_zeros(*weights.shape[:-1], GREY_LEVELS).scatter_add(-1, bins, weights)
    below = counts.cumsum(-1) < weights.sum(-1, keepdim=True) / 2
    return below.sum(-1) / (GREY_LEVELS - 1)


def _smoothed(x: Tensor) -> Tensor:
    """Smooth slices (N, H, W); what lies outside counts as 0."""
    deviation = SMOOTHING * x.shape[-1]
    radius = math.ceil(REACH * deviation)
    distance = torch.arange(-radius, radius + 1, device=x.device).float()
    kernel = (-(distance.square()) / (2 * deviation**2)).exp()
    kernel = kernel / kernel.sum()
    x = functional.conv2d(x.unsqueeze(1), kernel[None, None, :, None], padding="same")
    return functional.conv2d(x, kernel[None, None, None], padding="same").squeeze(1)
