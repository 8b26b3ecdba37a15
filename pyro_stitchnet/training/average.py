"""Moving averages of a network's weights."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["Average", "Teacher"]


class Average(AveragedModel):
    """The moving average of a network's weights and buffers.

    After n steps the decay is the smaller of (1 + n) / (10 + n) and ``decay``. With a constant
    decay of .99, the random initial weights would be 13 % of the average after 200 steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from the network's weights.

        Args:
            network: on the device of the average.
            decay: of the average, in [0, 1).
        """
        super().__init__(network, multi_avg_fn=_moving(decay), use_buffers=True)


class Teacher(Average):
    """An average that predicts: always in evaluation mode, without gradients.

    Source: Tarvainen & Valpola, Mean teachers are better role models, NeurIPS 2017.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from the network's weights."""
        super().__init__(network, decay)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Label probabilities (N, K, H, W) of slices (N, H, W), in 32 bits."""
        return self(x.unsqueeze(1)).float().log_softmax(1).exp()


def _moving(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averages: Sequence[Tensor], values: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        current = min(decay, (1 + n) / (10 + n))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - current)
            else:
                average.copy_(value)  # batch norm's count of batches

    return update
