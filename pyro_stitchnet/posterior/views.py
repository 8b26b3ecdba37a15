"""The eight flips and quarter turns of a square slice, and averages over them."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["VIEWS", "averaged"]

VIEWS = 8
"""Flips and quarter turns of a square."""


def averaged(answer: Callable[[Tensor], Tensor], x: Tensor, views: int) -> Tensor:
    """The mean of what is answered about a slice flipped and turned, each turned back.

    Training flips and turns slices, so that all views are as good; their mean is better than each.

    Args:
        answer: of slices (N, S, S), maps (N, ..., S, S).
        x: slices (N, S, S).
        views: how many, 1 (the slices as they are) to 8.

    Raises:
        ValueError: ``views`` is out of range, or the slices are not square.
    """
    if not 1 <= views <= VIEWS:
        raise ValueError(f"views must be between 1 and {VIEWS}, got {views}")
    if views > 1 and x.shape[-2] != x.shape[-1]:
        raise ValueError(f"slices that are turned must be square, got {tuple(x.shape[-2:])}")
    return torch.stack([_back(answer(_view(x, view)), view) for view in range(views)]).mean(0)


def _view(maps: Tensor, view: int) -> Tensor:
    """Maps turned by ``view`` % 4 quarters, flipped where it is 4 and more."""
    turned = maps.rot90(view % 4, (-2, -1))
    return turned.flip(-1) if view >= 4 else turned


def _back(maps: Tensor, view: int) -> Tensor:
    """The inverse of :func:`_view`."""
    return (maps.flip(-1) if view >= 4 else maps).rot90(-(view % 4), (-2, -1))
