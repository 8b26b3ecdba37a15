"""Communication of training processes, so that their parts of a batch act as one batch.

Without several processes every function is local.
"""

from typing import Any

import torch
from torch import Tensor, distributed

__all__ = ["all_mean", "leave", "own_rows", "processes", "rank"]


def processes() -> int:
    """Return the number of training processes."""
    return distributed.get_world_size() if _several() else 1


def rank() -> int:
    """Return the number of this training process, from 0."""
    return distributed.get_rank() if _several() else 0


def all_mean(local: Tensor) -> Tensor:
    """Return the mean of ``local`` over the processes; gradients flow back to all of them."""
    return _Sum.apply(local) / processes() if processes() > 1 else local


def own_rows(n: int) -> slice:
    """Return which of ``n`` rows belong to this process: ``rank``, ``rank + processes``, ..."""
    return slice(rank(), n, processes())


def leave() -> None:
    """Leave the process group, if there is one.

    Call it before Python exits: threads of gloo that still run at exit abort the process.
    """
    if _several():
        distributed.destroy_process_group()


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, local: Tensor) -> Tensor:
        return _summed(local)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(local: Tensor) -> Tensor:
    total = local.contiguous().clone()
    distributed.all_reduce(total)
    return total
