"""What the baselines share: the loss of labels, and of label sets."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.model.classifier_loss import dice_loss, log_allowed
from pyro_stitchnet.training.learner import Learner

__all__ = ["Reading", "Supervised", "cross_entropy", "set_loss"]

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
        told = ~batch.unlabelled
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
