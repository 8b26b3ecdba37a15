"""Normalisation after a convolution: batch norm, as in the article, or group norm."""

import math

import torch
from torch import Tensor, nn

from pyro_stitchnet.runtime.distributed import all_mean, processes

__all__ = ["BatchNorm2d", "TwoRoleBatchNorm2d", "norm", "set_role"]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all training processes, on any device.

    torch's ``SyncBatchNorm`` runs on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (N, C, H, W)."""
        return self.normalise(x, self.running_mean, self.running_var)

    def normalise(self, x: Tensor, mean: Tensor | None, var: Tensor | None) -> Tensor:
        """Normalise ``x``; in training mode update the running statistics ``mean`` and ``var``."""
        if not self.training or processes() == 1:
            return nn.functional.batch_norm(
                x, mean, var, self.weight, self.bias, self.training, self.momentum or 0.0, self.eps
            )
        assert mean is not None  # there are running statistics
        assert var is not None
        wide = x.float()
        now = all_mean(wide.mean((0, 2, 3), keepdim=True))
        spread = all_mean((wide - now).square().mean((0, 2, 3), keepdim=True))
        with torch.no_grad():
            n = processes() * x.numel() / x.shape[1]
            mean.lerp_(now.flatten(), self.momentum or 0.0)
            var.lerp_(spread.flatten() * n / (n - 1), self.momentum or 0.0)
        scale = (spread + self.eps).rsqrt() * self.weight.view(1, -1, 1, 1)
        return ((wide - now) * scale + self.bias.view(1, -1, 1, 1)).to(x.dtype)


class TwoRoleBatchNorm2d(BatchNorm2d):
    """Batch norm with separate running statistics for inference and generation.

    The SVAE applies one module to the encoder's features and to the decoder's. Their distributions
    differ, so that one pair of running statistics would fit neither in evaluation mode. All
    parameters are shared, as in the article.
    """

    generating_mean: Tensor
    generating_var: Tensor

    def __init__(self, channels: int) -> None:
        """Take the number of ``channels``, as :class:`torch.nn.BatchNorm2d`."""
        super().__init__(channels)
        self.generating = False
        self.register_buffer("generating_mean", torch.zeros(channels))
        self.register_buffer("generating_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (N, C, H, W); the running statistics are those of the current role."""
        mean, var = (
            (self.generating_mean, self.generating_var)
            if self.generating
            else (self.running_mean, self.running_var)
        )
        return self.normalise(x, mean, var)


def set_role(module: nn.Module, *, generating: bool) -> None:
    """Choose the running statistics of every :class:`TwoRoleBatchNorm2d` in ``module``."""
    for child in module.modules():
        if isinstance(child, TwoRoleBatchNorm2d):
            child.generating = generating


def norm(kind: str, channels: int) -> nn.Module:
    """Return the normalisation ``kind`` for ``channels``: "batch" (the article) or "group".

    Group norm has at most 8 groups of at least 4 channels. It has no running statistics: its
    results depend neither on the rest of the batch nor on the mode.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind == "batch":
        return TwoRoleBatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(8, max(1, channels // 4), channels), channels)
    raise ValueError(f"norm {kind!r} is unknown; choose 'batch' or 'group'")
