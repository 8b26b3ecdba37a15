"""Styles that start at the grey values of their labels."""

import torch
from torch import Tensor, nn

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.likelihoods import FROM_MOMENTS

__all__ = ["anchor_styles", "output_layer"]

SCALE = 0.1  # factor on the random weights of anchored styles


@torch.no_grad()
def anchor_styles(heads: nn.ModuleList, likelihood: str, x: Tensor, allowed: Tensor) -> None:
    """Initialise every style with the mean and standard deviation of its label's grey values.

    The moments become the bias of the last layer. Its weights are scaled down, so the styles hardly
    depend on z at the start. A label without labelled pixels keeps its random start.

    Args:
        heads: of a StitchNet.
        likelihood: name of the family of the styles.
        x: labelled slices (N, H, W) in [0, 1].
        allowed: labels that each pixel may have, bool (N, H, W, K).

    Raises:
        ValueError: the parameters of the likelihood do not follow from moments.
    """
    if likelihood not in FROM_MOMENTS:
        raise ValueError(
            f"styles of the likelihood {likelihood!r} cannot be anchored; choose one of "
            f"{', '.join(FROM_MOMENTS)}"
        )
    single = allowed.sum(-1) == 1
    for label in range(len(LABELS)):
        grey = x[single & allowed[..., label]]
        if len(grey) < 2:
            continue
        parameters = FROM_MOMENTS[likelihood](grey.mean(), grey.std())
        for number, value in zip((1, 2), parameters, strict=True):
            weight, bias = output_layer(heads, number * len(LABELS) + label)
            weight.mul_(SCALE)
            bias.copy_(value)


def output_layer(heads: nn.ModuleList, index: int) -> tuple[Tensor, Tensor]:
    """Weights and bias of the last layer for one of the heads' maps, in the order of the maps."""
    last = [list(head.children())[-1] for head in heads]
    maps = [
        (weight, bias)
        for convolution in last
        for weight, bias in zip(*convolution.parameters(), strict=True)
    ]
    return maps[index]
