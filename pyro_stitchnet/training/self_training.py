"""Self-training of q(y | x): its targets are labels that the model is sure of."""

from dataclasses import replace

import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.labels import GGO
from pyro_stitchnet.model.label_terms import Guided
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.training.consistency_losses import dropped_features_loss, strong_views_loss
from pyro_stitchnet.training.learner import ElboLearner, LossOutput, log_q_in_evaluation_mode

__all__ = ["SelfTraining"]


class SelfTraining(ElboLearner):
    """The bound, the classifier's loss, and UniMatch's loss with labels of the model.

    On slices where a pixel may have several labels A, perturbed views learn the likeliest y of ::

        r(y)  in proportion to  1[y in A] q'(y | x)

    at the pixels where y has at least the probability ``confidence``. With ``pseudo_labels``
    "classifier" q' is q in evaluation mode, as in UniMatch. With "posterior" its infection is
    divided into GGO and consolidation by the tissue levels, as in
    :meth:`~pyro_stitchnet.model.stitchnet.StitchNet.log_separated`. A pixel that is surely infected
    then counts also where the two are hard to tell apart.

    The views are those of UniMatch (Yang et al., CVPR 2023): two strong ones with CutMix, and one
    with dropped features. UniMatch uses unlabelled slices. Here slices with label sets such as
    "infection" are used too.
    """

    strong_views = 2

    def __init__(self, net: StitchNet, objective: Objective) -> None:
        """Take the model, which must have a classifier, and its objective.

        Raises:
            ValueError: the model has no classifier, or the label term is not "guided".
        """
        super().__init__(net, objective)
        if net.classifier is None or not isinstance(objective.labels, Guided):
            raise ValueError(
                "consistency_weight needs q(y | x) in the guide; set classifier=True and labels "
                "'guided'"
            )

    @property
    def classifier(self) -> UNet:
        """The network of q(y | x)."""
        assert self.net.classifier is not None
        return self.net.classifier

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """The negative bound in nats per pixel, the classifier's loss, and the consistency loss."""
        output, labels = super().loss(batch, step), self.objective.labels
        assert isinstance(labels, Guided)
        ambiguous = batch.ambiguous
        if not ambiguous.any():
            return output
        x, strong = batch.x[ambiguous], batch.strong[:, ambiguous]
        by_posterior = labels.pseudo_labels == "posterior"
        r = self._label_probabilities(x, batch.allowed[ambiguous], by_posterior)
        confidence, targets = r.max(1)
        if by_posterior:
            confidence = torch.maximum(confidence, r[:, GGO:].sum(1))
        sure = (confidence >= labels.confidence).float()
        dropped = dropped_features_loss(self.classifier, x, targets, sure)
        consistency = (strong_views_loss(self._logits, strong, targets, sure) + dropped) / 2
        return replace(output, loss=output.loss + labels.consistency_weight * consistency)

    def pass_for_statistics(self, batch: Batch, step: int) -> None:
        """Pass the slices as they are, without perturbed views."""
        super().loss(batch, step)

    @torch.no_grad()
    def _label_probabilities(self, x: Tensor, allowed: Tensor, by_posterior: bool) -> Tensor:
        """r(y) of slices (N, H, W), (N, K, H, W)."""
        log_q = log_q_in_evaluation_mode(self.net, x)
        scores = self.net.log_separated(x, log_q) if by_posterior else log_q
        # A softmax over a last axis of four is several times slower.
        return scores.masked_fill(~allowed, -torch.inf).movedim(-1, 1).softmax(1)

    def _logits(self, x: Tensor) -> Tensor:
        return self.classifier(x.unsqueeze(1)).float()
