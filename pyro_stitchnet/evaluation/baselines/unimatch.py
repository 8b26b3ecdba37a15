"""FixMatch and UniMatch: what is sure on a weak view is the truth of strong ones."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_stitchnet.data.datasets.augment import random_box
from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised, cross_entropy
from pyro_stitchnet.model.nn.unet import UNet

__all__ = ["FixMatch", "UniMatch"]


class FixMatch(Supervised):
    """Labels of the weak view where its confidence reaches a threshold, for one strong view.

    Sohn et al., NeurIPS 2020, with UniMatch's CutMix between unlabelled slices and its threshold.
    """

    strong_views = 1

    def __init__(
        self, network: nn.Module, *, weight: float = 1.0, confidence: float = 0.95
    ) -> None:
        """Take the network.

        Args:
            network: logits of grey slices.
            weight: of the unlabelled loss beside the labels'.
            confidence: that a label needs to be believed.
        """
        super().__init__(network)
        self.weight, self.confidence = weight, confidence

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The labels' loss and that of believed labels."""
        supervised, mute = super().loss(batch, step), batch.unlabelled
        if not mute.any():
            return supervised
        sure, labels = self.believed(batch.x[mute])
        return supervised + self.weight * self.strong_loss(batch.strong[:, mute], sure, labels)

    def believed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Which pixels' labels are believed, float (N, H, W), and the labels."""
        best, labels = self.predict(x).max(1)
        return (best >= self.confidence).float(), labels

    def strong_loss(self, strong: Tensor, sure: Tensor, labels: Tensor) -> Tensor:
        """The believed labels' loss on strong views (V, N, H, W), boxes moved between slices."""
        losses = []
        for view in strong:
            x, kept, truth = _cut_mix(view, sure, labels)
            losses.append(cross_entropy(self.logits(x), truth, kept))
        return torch.stack(losses).mean()


class UniMatch(FixMatch):
    """FixMatch with two strong views, and a view whose features lost half of their channels.

    Yang et al., CVPR 2023: the strong views and the view of dropped features weigh a half each.
    """

    strong_views = 2
    network: UNet

    def __init__(self, network: UNet, *, weight: float = 1.0, confidence: float = 0.95) -> None:
        """Take a network in two halves."""
        super().__init__(network, weight=weight, confidence=confidence)

    def loss(self, batch: Batch, step: int) -> Tensor:
        """FixMatch's, and the loss of the weak view with dropped features."""
        supervised, mute = Supervised.loss(self, batch, step), batch.unlabelled
        if not mute.any():
            return supervised
        sure, labels = self.believed(batch.x[mute])
        features = self.network.features(batch.x[mute].unsqueeze(1))
        dropped = [functional.dropout2d(f, 0.5) for f in features]
        perturbed = cross_entropy(self.network.from_features(dropped).float(), labels, sure)
        strong = self.strong_loss(batch.strong[:, mute], sure, labels)
        return supervised + self.weight * (strong + perturbed) / 2


def _cut_mix(x: Tensor, sure: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A box of every slice, and what is known of it, replaced with that of another slice."""
    if len(x) < 2:
        return x, sure, labels
    box = random_box(x.shape[-2:]).to(x.device)
    x, sure, labels = (torch.where(box, part.roll(1, 0), part) for part in (x, sure, labels))
    return x, sure, labels
