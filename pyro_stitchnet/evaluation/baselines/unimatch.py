"""FixMatch and UniMatch: confident labels of a weak view are the targets of strong views."""

from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.runtime.ranges import Share, Weight, checked_arguments
from pyro_stitchnet.training.consistency_losses import dropped_features_loss, strong_views_loss
from pyro_stitchnet.training.learner import LossOutput

__all__ = ["FixMatch", "UniMatch"]


class FixMatch(Supervised):
    """Labels of the weak view whose confidence reaches a threshold are the target of a strong one.

    Sohn et al., NeurIPS 2020, with UniMatch's threshold and its CutMix between unlabelled slices.
    """

    strong_views = 1

    @checked_arguments
    def __init__(
        self, network: nn.Module, *, weight: Weight = 1.0, confidence: Share = 0.95
    ) -> None:
        """Take the network.

        Args:
            network: from grey slices to logits.
            weight: factor on the loss of the unlabelled slices.
            confidence: smallest probability of a pseudo-label.
        """
        super().__init__(network)
        self.weight, self.confidence = weight, confidence

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """Return the loss of the labels plus that of the confident pseudo-labels."""
        supervised, unlabelled = self.supervised_loss(batch), batch.unlabelled
        if not unlabelled.any():
            return LossOutput(supervised)
        x, strong = batch.x[unlabelled], batch.strong[:, unlabelled]
        best, labels = self.probabilities(x).max(1)
        confident = (best >= self.confidence).float()
        consistency = self.consistency_loss(x, strong, labels, confident)
        return LossOutput(supervised + self.weight * consistency)

    def consistency_loss(
        self, x: Tensor, strong: Tensor, labels: Tensor, confident: Tensor
    ) -> Tensor:
        """Return the loss of pseudo-labels (N, H, W) on strong views (V, N, H, W)."""
        return strong_views_loss(self.logits, strong, labels, confident)


class UniMatch(FixMatch):
    """FixMatch with two strong views, and a weak view with half of its feature channels dropped.

    Yang et al., CVPR 2023: the strong views and the view with dropped features have half of the
    weight each. The authors' code for medical slices differs: a soft Dice loss in place of
    cross-entropy, CutMix of half of the slices with a box for each, and pseudo-labels in training
    mode.
    """

    strong_views = 2
    network: UNet

    def __init__(self, network: UNet, *, weight: Weight = 1.0, confidence: Share = 0.95) -> None:
        """Take a U-Net, whose encoder and decoder can be run separately."""
        super().__init__(network, weight=weight, confidence=confidence)

    def consistency_loss(
        self, x: Tensor, strong: Tensor, labels: Tensor, confident: Tensor
    ) -> Tensor:
        """Return the mean of FixMatch's loss and that of the view with dropped features."""
        dropped = dropped_features_loss(self.network, x, labels, confident)
        return (super().consistency_loss(x, strong, labels, confident) + dropped) / 2
