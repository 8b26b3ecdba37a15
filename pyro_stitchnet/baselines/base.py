"""What the baselines share: the loss of labels, and of label sets, and a teacher of averages."""

import math
from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyro_stitchnet.data.batches import Batch
from pyro_stitchnet.data.slices import Slices
from pyro_stitchnet.sets import dice_loss, log_allowed
from pyro_stitchnet.training.learner import Learner

__all__ = ["Reading", "Supervised", "Teacher", "ramp", "set_loss", "unlabelled"]

Reading = Callable[[Tensor], Tensor]
"""Slices (N, H, W) to label probabilities (N, K, H, W)."""

PREDICTED_AT_ONCE = 8


class Supervised(Learner):
    """A segmentation network trained on the annotated slices of a batch alone.

    The loss is cross-entropy of label sets plus soft Dice, as nnU-Net has it (Isensee et al.,
    Nature Methods 2021); see :func:`set_loss`.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        """Take the network: grey slices (N, 1, H, W) to logits (N, K, H, W)."""
        super().__init__()
        self.network = network

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The loss of the labels."""
        told = ~unlabelled(batch)
        return set_loss(self.logits(batch.x[told]), batch.allowed[told])

    def logits(self, x: Tensor) -> Tensor:
        """The network's answer to slices (N, H, W), in 32 bits."""
        return self.network(x.unsqueeze(1)).float()

    def predictor(self) -> nn.Module:
        """The network that predicts."""
        return self.network

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The softmax of the network's answer."""
        network = self.predictor()
        was_training = network.training
        network.eval()
        try:
            parts = [network(part.unsqueeze(1)).float() for part in x.split(PREDICTED_AT_ONCE)]
        finally:
            network.train(was_training)
        return torch.cat(parts).softmax(1)

    def readings(self, labelled: Slices) -> Mapping[str, Reading]:
        """Ways to segment with the trained network, by name.

        Args:
            labelled: the training slices that have labels, for those that fit something to them.
        """
        return {"": self.predict}


class Teacher(AveragedModel):
    """The moving average of a network's weights, always in evaluation mode, without gradients."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with the network's own weights."""
        super().__init__(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Label probabilities (N, K, H, W) of slices (N, H, W)."""
        return self(x.unsqueeze(1)).float().softmax(1)


def unlabelled(batch: Batch) -> Tensor:
    """Which slices of a batch have no annotation, bool (N,)."""
    return batch.allowed.flatten(1).all(1)


def set_loss(logits: Tensor, allowed: Tensor) -> Tensor:
    """-log p(y in A) plus 1 - soft Dice of the labels, 0 without slices.

    Args:
        logits: (N, K, H, W).
        allowed: the labels that each pixel may have, bool (N, H, W, K). The first term is a mean
            over the pixels whose set is not all; the second is over those of one label, the mean
            over the labels that are there.
    """
    if not len(logits):
        return logits.sum() * 0
    log_p = logits.movedim(1, -1).log_softmax(-1)
    annotated = ~allowed.all(-1)
    return dice_loss(log_p, allowed) - log_allowed(log_p, allowed)[annotated].mean()


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over pixels, each weighed; 0 without slices.

    Args:
        logits: (N, K, H, W).
        labels: int64 (N, H, W).
        weight: (N, H, W) in [0, 1]; the mean stays one over all pixels.
    """
    if not len(logits):
        return logits.sum() * 0
    loss = functional.cross_entropy(logits, labels, reduction="none")
    return (loss if weight is None else loss * weight).mean()


def ramp(step: int, length: int) -> float:
    """exp(-5 (1 - t)^2), the rise of a weight over the first steps (Laine & Aila, ICLR 2017)."""
    return math.exp(-5 * (1 - min(step / length, 1)) ** 2) if length else 1.0
