"""Activations that are computed again in the backward pass, to save memory."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["recomputed"]


def recomputed(network: nn.Module, x: Tensor) -> Tensor:
    """Return ``network(x)`` without keeping its activations for the backward pass.

    The backward pass computes them again (Chen et al. 2016, arXiv:1604.06174). Batch norm's running
    statistics are updated once only.

    Args:
        network: one without random numbers.
        x: its input.
    """
    if not torch.is_grad_enabled():
        return network(x)
    result = checkpoint(
        network,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(network)),
    )
    assert isinstance(result, Tensor)
    return result


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Leave batch norm's running statistics as they are within."""
    layers = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
