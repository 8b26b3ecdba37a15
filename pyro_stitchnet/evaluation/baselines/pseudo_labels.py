"""Pseudo-labels, as Semi-Inf-Net has them: train, label the unlabelled slices, go on with both."""

from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised, cross_entropy
from pyro_stitchnet.training.average import Teacher

__all__ = ["PseudoLabels"]


class PseudoLabels(Supervised):
    """A frozen copy of the network labels the unlabelled slices, and is renewed now and then.

    Fan et al., IEEE TMI 2020 (Semi-Inf-Net): there, groups of unlabelled slices are labelled and
    added one after another, and training goes on after each. Here the copy that labels them is
    renewed at those moments, so that the number of steps is that of the other methods.
    """

    def __init__(
        self, network: nn.Module, *, weight: float = 1.0, first: int = 200, every: int = 100
    ) -> None:
        """Take the network.

        Args:
            network: logits of grey slices.
            weight: of the unlabelled slices' loss beside the labels'.
            first: steps on labels alone.
            every: steps between two renewals of the copy after those.
        """
        super().__init__(network)
        self.copy = Teacher(network, 0.0)
        self.weight, self.first, self.every = weight, first, every

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The labels' loss, and that of the copy's labels."""
        supervised, mute = super().loss(batch, step), batch.unlabelled
        if step <= self.first or not mute.any():
            return supervised
        if (step - 1 - self.first) % self.every == 0:
            self.copy.update_parameters(self.network)
        x = batch.x[mute]
        labels = self.copy.probabilities(x).argmax(1)
        return supervised + self.weight * cross_entropy(self.logits(x), labels)
