"""Normalisation after a convolution: as in the article, or free of batch statistics."""

import math

import torch
from torch import Tensor, nn

from pyro_stitchnet.runtime.distributed import all_mean, processes

__all__ = ["BatchNorm2d", "TwoRoleBatchNorm2d", "norm", "set_role"]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all training processes, on CPUs too.

    torch's ``SyncBatchNorm`` is for GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (N, C, H, W)."""
        return self.normalise(x, self.running_mean, self.running_var)

    def normalise(self, x: Tensor, mean: Tensor | None, var: Tensor | None) -> Tensor:
        """Normalise ``x`` and, in training, move the running statistics ``mean`` and ``var``."""
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
    """Batch norm whose running statistics are kept apart for inference and generation.

    The SVAE shares one module between the encoder's features and the decoder's. Their
    distributions differ, so one pair of running statistics fits neither at evaluation. Weights are
    shared as in the article; only the two running averages (buffers, not parameters) are separate.
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
        """Normalise ``x`` (N, C, H, W) with the statistics of the current role."""
        mean, var = (
            (self.generating_mean, self.generating_var)
            if self.generating
            else (self.running_mean, self.running_var)
        )
        return self.normalise(x, mean, var)


def set_role(module: nn.Module, *, generating: bool) -> None:
    """Choose which running statistics every :class:`TwoRoleBatchNorm2d` below ``module`` uses."""
    for child in module.modules():
        if isinstance(child, TwoRoleBatchNorm2d):
            child.generating = generating


def norm(kind: str, channels: int) -> nn.Module:
    """Return the normalisation ``kind`` for ``channels``: ``"batch"`` (the article) or ``"group"``.

    Group norm takes groups of at least 4 channels, at most 8 groups; it has no running statistics,
    so it behaves alike for any batch size, in training and at evaluation.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind == "batch":
        return TwoRoleBatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(8, max(1, channels // 4), channels), channels)
    raise ValueError(f"norm {kind!r} is unknown; choose 'batch' or 'group'")
