"""Cross Pseudo Supervision: each of two networks is trained on the labels of the other."""

from torch import nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised, label_loss
from pyro_stitchnet.runtime.ranges import CountOrZero, Weight, checked_arguments
from pyro_stitchnet.training.consistency_losses import cross_entropy
from pyro_stitchnet.training.learner import LossOutput, ramp

__all__ = ["CrossPseudoSupervision"]


class CrossPseudoSupervision(Supervised):
    """Two networks of different initial weights; the hard labels of each are the other's target.

    Chen et al., CVPR 2021, with SSL4MIS' settings for slices: weight 0.1, on the unlabelled
    slices; no CutMix. The rise of the weight ends after 200 steps, in SSL4MIS with the training.
    Only the first network predicts.
    """

    @checked_arguments
    def __init__(
        self,
        network: nn.Module,
        other: nn.Module,
        *,
        weight: Weight = 0.1,
        ramp_steps: CountOrZero = 200,
    ) -> None:
        """Take both networks.

        Args:
            network: the network that predicts.
            other: the second network.
            weight: factor on the cross supervision.
            ramp_steps: steps over which that factor rises.
        """
        super().__init__(network)
        self.other = other
        self.weight, self.ramp_steps = weight, ramp_steps

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """Return both networks' loss of the labels plus the cross supervision."""
        labelled = ~batch.unlabelled
        logits = [net(batch.x.unsqueeze(1)).float() for net in (self.network, self.other)]
        allowed = batch.allowed[labelled]
        supervised = sum(label_loss(each[labelled], allowed) for each in logits)
        one, two = (each[~labelled] for each in logits)
        cross = cross_entropy(one, two.argmax(1)) + cross_entropy(two, one.argmax(1))
        return LossOutput(supervised + self.weight * ramp(step, self.ramp_steps) * cross)
