"""Losses of perturbed views whose targets are pseudo-labels, as in FixMatch and UniMatch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pyro_stitchnet.data.datasets.augment import random_box
from pyro_stitchnet.model.nn.unet import UNet

__all__ = ["cross_entropy", "dropped_features_loss", "strong_views_loss"]


def strong_views_loss(
    logits: Callable[[Tensor], Tensor], strong: Tensor, labels: Tensor, weight: Tensor
) -> Tensor:
    """Return the mean cross-entropy over strong views, each mixed by CutMix; a scalar.

    Args:
        logits: the network, from slices (N, H, W) to logits (N, K, H, W).
        strong: strong views (V, N, H, W).
        labels: pseudo-labels, int64 (N, H, W).
        weight: of each pixel, (N, H, W) in [0, 1].

    Source: Sohn et al., FixMatch, NeurIPS 2020; CutMix as in Yang et al., UniMatch, CVPR 2023.
    """
    losses = []
    for view in strong:
        x, mixed_labels, mixed_weight = _cut_mix(view, labels, weight)
        losses.append(cross_entropy(logits(x), mixed_labels, mixed_weight))
    return torch.stack(losses).mean()


def dropped_features_loss(network: UNet, x: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the cross-entropy of slices with half of their feature channels dropped; a scalar.

    Args:
        network: a U-Net, whose encoder and decoder run separately.
        x: slices (N, H, W).
        labels: pseudo-labels, int64 (N, H, W).
        weight: of each pixel, (N, H, W) in [0, 1].

    Source: Yang et al., UniMatch, CVPR 2023.
    """
    dropped = [functional.dropout2d(f, 0.5) for f in network.features(x.unsqueeze(1))]
    return cross_entropy(network.from_features(dropped).float(), labels, weight)


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the weighted mean cross-entropy over all pixels; 0 without slices.

    Args:
        logits: (N, K, H, W).
        labels: int64 (N, H, W).
        weight: of each pixel, (N, H, W) in [0, 1]; the sum is divided by the number of pixels.
    """
    if not len(logits):
        return logits.sum() * 0
    loss = functional.cross_entropy(logits, labels, reduction="none")
    return (loss if weight is None else loss * weight).mean()


def _cut_mix(x: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace a box of every slice, with its pseudo-labels, by that of another slice."""
    if len(x) < 2:
        return x, labels, weight
    box = random_box(x.shape[-2:]).to(x.device)
    x, labels, weight = (torch.where(box, part.roll(1, 0), part) for part in (x, labels, weight))
    return x, labels, weight
