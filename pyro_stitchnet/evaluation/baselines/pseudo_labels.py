"""Pseudo-labels of unlabelled slices, as in Semi-Inf-Net."""

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised
from pyro_stitchnet.runtime.ranges import Count, CountOrZero, Weight, checked_arguments
from pyro_stitchnet.training.average import Teacher
from pyro_stitchnet.training.consistency_losses import cross_entropy
from pyro_stitchnet.training.learner import LossOutput

__all__ = ["PseudoLabels"]


class PseudoLabels(Supervised):
    """A copy of the network, renewed at intervals, labels the unlabelled slices.

    Fan et al., IEEE TMI 2020 (Semi-Inf-Net): there, groups of unlabelled slices are labelled and
    added one after another, and training continues after each. Here the copy is renewed at those
    moments instead, so that the number of steps is that of the other methods.
    """

    made: Tensor

    @checked_arguments
    def __init__(
        self,
        network: nn.Module,
        *,
        weight: Weight = 1.0,
        pretraining_steps: CountOrZero = 200,
        every: Count = 100,
    ) -> None:
        """Create the copy.

        Args:
            network: from grey slices to logits.
            weight: factor on the loss of the pseudo-labels.
            pretraining_steps: first steps, on labelled slices alone.
            every: steps between two renewals of the copy after those.
        """
        super().__init__(network)
        self.copy = Teacher(network, 0.0)
        self.weight, self.pretraining_steps, self.every = weight, pretraining_steps, every
        self.register_buffer("made", torch.tensor(0))  # steps that changed the network

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """Return the loss of the labels plus that of the pseudo-labels."""
        supervised, unlabelled = self.supervised_loss(batch), batch.unlabelled
        if self.made < self.pretraining_steps or not unlabelled.any():
            return LossOutput(supervised)
        x = batch.x[unlabelled]
        labels = self.copy.probabilities(x).argmax(1)
        return LossOutput(supervised + self.weight * cross_entropy(self.logits(x), labels))

    def stepped(self) -> None:
        """Renew the copy after the first steps, and at intervals from then on."""
        self.made += 1
        since = self.made - self.pretraining_steps
        if since >= 0 and since % self.every == 0:
            self.copy.update_parameters(self.network)
