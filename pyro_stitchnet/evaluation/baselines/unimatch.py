"""FixMatch and UniMatch: confident labels of a weak view are the targets of strong views."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_stitchnet.data.datasets.augment import random_box
from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.evaluation.baselines.base import Supervised, cross_entropy
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.training.learner import LossOutput

__all__ = ["FixMatch", "UniMatch"]


class FixMatch(Supervised):
    """Labels of the weak view whose confidence reaches a threshold are the target of a strong one.

    Sohn et al., NeurIPS 2020, with UniMatch's threshold and its CutMix between unlabelled slices.
    """

    strong_views = 1

    def __init__(
        self, network: nn.Module, *, weight: float = 1.0, confidence: float = 0.95
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
        confident, labels = self.pseudo_labels(batch.x[unlabelled])
        strong = self.strong_loss(batch.strong[:, unlabelled], confident, labels)
        return LossOutput(supervised + self.weight * strong)

    def pseudo_labels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return which pixels are confident, float (N, H, W), and all labels, int64 (N, H, W)."""
        best, labels = self.probabilities(x).max(1)
        return (best >= self.confidence).float(), labels

    def strong_loss(self, strong: Tensor, confident: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of pseudo-labels on strong views (V, N, H, W), mixed by CutMix."""
        losses = []
        for view in strong:
            x, weight, target = _cut_mix(view, confident, labels)
            losses.append(cross_entropy(self.logits(x), target, weight))
        return torch.stack(losses).mean()


class UniMatch(FixMatch):
    """FixMatch with two strong views, and a weak view with half of its feature channels dropped.

    Yang et al., CVPR 2023: the strong views and the view with dropped features have half of the
    weight each.
    """

    strong_views = 2
    network: UNet

    def __init__(self, network: UNet, *, weight: float = 1.0, confidence: float = 0.95) -> None:
        """Take a U-Net, whose encoder and decoder can be run separately."""
        super().__init__(network, weight=weight, confidence=confidence)

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """Return FixMatch's loss plus that of the weak view with dropped features."""
        supervised, unlabelled = self.supervised_loss(batch), batch.unlabelled
        if not unlabelled.any():
            return LossOutput(supervised)
        confident, labels = self.pseudo_labels(batch.x[unlabelled])
        features = self.network.features(batch.x[unlabelled].unsqueeze(1))
        dropped = [functional.dropout2d(f, 0.5) for f in features]
        logits = self.network.from_features(dropped).float()
        perturbed = cross_entropy(logits, labels, confident)
        strong = self.strong_loss(batch.strong[:, unlabelled], confident, labels)
        return LossOutput(supervised + self.weight * (strong + perturbed) / 2)


def _cut_mix(x: Tensor, confident: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace a box of every slice, with its pseudo-labels, by that of another slice."""
    if len(x) < 2:
        return x, confident, labels
    box = random_box(x.shape[-2:]).to(x.device)
    x, confident, labels = (
        torch.where(box, part.roll(1, 0), part) for part in (x, confident, labels)
    )
    return x, confident, labels
