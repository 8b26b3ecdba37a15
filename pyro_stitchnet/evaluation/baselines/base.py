"""The supervised baseline, and losses that the other baselines share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.model.classifier_loss import ClassifierLoss
from pyro_stitchnet.training.learner import Learner, LossOutput

__all__ = ["Predictor", "Supervised", "label_loss"]

Predictor = Callable[[Tensor], Tensor]
"""A function from slices (N, H, W) to label probabilities (N, K, H, W)."""

BATCH_SIZE = 8  # slices per forward pass of a prediction


class Supervised(Learner):
    """A segmentation network trained on the annotated slices of a batch alone.

    Its loss is cross-entropy of label sets plus soft Dice, as in nnU-Net (Isensee et al., Nature
    Methods 2021); see :func:`label_loss`.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        """Take the network, from grey slices (N, 1, H, W) to logits (N, K, H, W)."""
        super().__init__()
        self.network = network

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """Return the loss of the labels."""
        return LossOutput(self.supervised_loss(batch))

    def supervised_loss(self, batch: Batch) -> Tensor:
        """Return the loss of the annotated slices, a scalar; 0 without any."""
        labelled = ~batch.unlabelled
        return label_loss(self.logits(batch.x[labelled]), batch.allowed[labelled])

    def logits(self, x: Tensor) -> Tensor:
        """Return the network's logits (N, K, H, W) of slices (N, H, W), in 32 bits."""
        return self.network(x.unsqueeze(1)).float()

    def pass_for_statistics(self, batch: Batch, step: int) -> None:
        """Pass the slices with labels, as they are, through the network that predicts.

        All methods are tested with statistics of the same slices, whichever mixed or strongly
        augmented slices their losses pass.
        """
        network, labelled = self.inference_network(), ~batch.unlabelled
        x = batch.x[labelled] if labelled.any() else batch.x
        was_training = network.training
        network.train()
        try:
            with torch.no_grad():
                network(x.unsqueeze(1))
        finally:
            network.train(was_training)

    def inference_network(self) -> nn.Module:
        """Return the network that predicts; a subclass may return an average of weights."""
        return self.network

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Return the softmax (N, K, H, W) of the inference network, in evaluation mode."""
        network = self.inference_network()
        was_training = network.training
        network.eval()
        try:
            parts = [network(part.unsqueeze(1)).float() for part in x.split(BATCH_SIZE)]
        finally:
            network.train(was_training)
        return torch.cat(parts).softmax(1)


def label_loss(logits: Tensor, allowed: Tensor) -> Tensor:
    """Return -log p(y in A) plus 1 - soft Dice, a scalar; 0 without annotated pixels.

    Args:
        logits: (N, K, H, W).
        allowed: labels that each pixel may have, bool (N, H, W, K); see
            :class:`~pyro_stitchnet.model.classifier_loss.ClassifierLoss`.
    """
    return ClassifierLoss()(logits.movedim(1, -1).log_softmax(-1), allowed)
