"""The eight flips and quarter turns of a square slice, and averages over them."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_stitchnet.posterior.options import VIEWS

__all__ = ["average_views"]


def average_views(function: Callable[[Tensor], Tensor], x: Tensor, views: int) -> Tensor:
    """Average a function of slices over flips and quarter turns, each turned back.

    Training flips and turns slices, so that all views are equally good; their mean is better.

    Args:
        function: slices (M, S, S) to maps (M, ..., S, S); called once, with all views, one after
            the other: M is N times ``views``.
        x: slices (N, S, S).
        views: how many, 1 (the slices as they are) to 8.

    Raises:
        ValueError: ``views`` is out of range, or the slices are not square.
    """
    if not 1 <= views <= VIEWS:
        raise ValueError(f"views must be between 1 and {VIEWS}, got {views}")
    if views > 1 and x.shape[-2] != x.shape[-1]:
        raise ValueError(f"more than one view needs square slices, got {tuple(x.shape[-2:])}")
    maps = function(torch.cat([_view(x, view) for view in range(views)])).split(len(x))
    return torch.stack([_back(one, view) for view, one in enumerate(maps)]).mean(0)


def _view(maps: Tensor, view: int) -> Tensor:
    """Maps turned by ``view`` % 4 quarters, flipped where it is 4 or more."""
    turned = maps.rot90(view % 4, (-2, -1))
    return turned.flip(-1) if view >= 4 else turned


def _back(maps: Tensor, view: int) -> Tensor:
    """The inverse of :func:`_view`."""
    return (maps.flip(-1) if view >= 4 else maps).rot90(-(view % 4), (-2, -1))
