"""Bilinear resizing of maps."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

__all__ = ["enlarge", "resize"]


def enlarge(maps: Tensor, factor: int) -> Tensor:
    """Enlarge maps (N, C, H, W) by an integer factor."""
    return maps if factor == 1 else resize(maps, [factor * side for side in maps.shape[-2:]])


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (N, C, H, W) to a size (rows, columns)."""
    return functional.interpolate(maps, list(size), mode="bilinear")
