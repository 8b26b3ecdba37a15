"""Cross Pseudo Supervision: two networks, each taught by the other's labels."""

from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised, cross_entropy, set_loss
from pyro_stitchnet.training.learner import ramp

__all__ = ["CrossPseudoSupervision"]


class CrossPseudoSupervision(Supervised):
    """Two networks of different starts; each one's labels, hard, are the other's truth.

    Chen et al., CVPR 2021, as SSL4MIS has it for slices: weight 0.1, ramped up, on the unlabelled
    slices; no CutMix. The first network predicts, so that prediction costs what a U-Net's does.
    """

    def __init__(
        self, network: nn.Module, other: nn.Module, *, weight: float = 0.1, ramp_steps: int = 200
    ) -> None:
        """Take both networks.

        Args:
            network: the one that will predict.
            other: the other one.
            weight: of the cross supervision beside the labels' loss.
            ramp_steps: over which it rises.
        """
        super().__init__(network)
        self.other = other
        self.weight, self.ramp_steps = weight, ramp_steps

    def loss(self, batch: Batch, step: int) -> Tensor:
        """Both networks' loss of the labels, and what each makes of the other's."""
        told = ~batch.unlabelled
        answers = [net(batch.x.unsqueeze(1)).float() for net in (self.network, self.other)]
        labels = sum(set_loss(logits[told], batch.allowed[told]) for logits in answers)
        one, two = (logits[~told] for logits in answers)
        cross = cross_entropy(one, two.argmax(1)) + cross_entropy(two, one.argmax(1))
        return labels + self.weight * ramp(step, self.ramp_steps) * cross
