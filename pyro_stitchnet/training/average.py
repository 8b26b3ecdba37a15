"""Moving averages of a network's weights."""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["Average", "Teacher"]


class Average(AveragedModel):
    """The moving average of a network's weights and buffers, which forgets the start in time.

    After n steps the decay is (1 + n) / (10 + n), up to the one that is wanted: with .99 from the
    first step, a tenth of the average after 200 steps would still be the random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with the network's own weights.

        Args:
            network: whose weights to average, on its own device.
            decay: of the average, in [0, 1).
        """
        super().__init__(network, multi_avg_fn=_moving(decay), use_buffers=True)


class Teacher(Average):
    """An average that answers: always in evaluation mode, without gradients.

    Source: Tarvainen & Valpola, Mean teachers are better role models, NeurIPS 2017.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with the network's own weights."""
        super().__init__(network, decay)
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


def _moving(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    @torch.no_grad()
    def update(averages: Sequence[Tensor], now: Sequence[Tensor], count: Tensor | int) -> None:
        n = int(count)
        kept = min(decay, (1 + n) / (10 + n))
        for average, value in zip(averages, now, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - kept)
            else:
                average.copy_(value)  # batch norm's count of batches

    return update
