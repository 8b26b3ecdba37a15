"""A teacher that lags behind: the moving average of a network's weights."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["Teacher"]


class Teacher(AveragedModel):
    """The moving average of a network's weights, always in evaluation mode, without gradients.

    Source: Tarvainen & Valpola, Mean teachers are better role models, NeurIPS 2017.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with the network's own weights."""
        super().__init__(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def log_probabilities(self, x: Tensor) -> Tensor:
        """Label log-probabilities (N, K, H, W) of slices (N, H, W), in 32 bits."""
        return self(x.unsqueeze(1)).float().log_softmax(1)

    def probabilities(self, x: Tensor) -> Tensor:
        """Label probabilities (N, K, H, W) of slices (N, H, W)."""
        return self.log_probabilities(x).exp()
