"""What the engine trains: networks that know their loss, their prediction and their figures."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import SliceSet, allowed_sets
from pyro_stitchnet.model.objective import negative_elbo
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import predict
from pyro_stitchnet.presets import Objective
from pyro_stitchnet.training.diagnostics import diagnose
from pyro_stitchnet.training.health import why_not_finite

__all__ = ["ElboLearner", "Learner", "ramp", "warmed_up"]

ANCHORS = 200  # slices


class Learner(nn.Module):
    """Networks in training, and what the engine asks of them.

    Attributes:
        strong_views: how many strongly augmented views of each slice its batches must hold.
        jitter: how much these change brightness and contrast, see
            :func:`~pyro_stitchnet.data.datasets.augment.strong_augmentation`.
    """

    strong_views = 0
    jitter = 0.5

    def begin(self, labelled: SliceSet) -> None:
        """Training is to begin, from new weights, with these annotated slices."""

    def loss(self, batch: Batch, step: int) -> Tensor:
        """What to lower: a differentiable scalar.

        Args:
            batch: slices and label sets.
            step: number of the optimiser step, from 1.
        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        """Label probabilities (N, K, H, W) of slices (N, H, W), in evaluation mode."""
        raise NotImplementedError

    def stepped(self) -> None:
        """A step was taken."""

    def figures(self, batch: Batch) -> dict[str, float]:
        """What to log of a batch beside the loss; must not change the run."""
        return {}

    def why_not_finite(self, batch: Batch) -> str:
        """What of a batch's loss was not finite."""
        return "the loss of the batch, or its gradient, is not"


class ElboLearner(Learner):
    """StitchNet, raising its bound on the evidence."""

    def __init__(self, net: StitchNet, objective: Objective) -> None:
        """Take the model, shared with the caller, and what it maximises."""
        super().__init__()
        self.net, self.objective = net, objective

    def begin(self, labelled: SliceSet) -> None:
        """Anchor the styles, where the model says so, on some hundred slices."""
        if not self.net.config.anchored:
            return
        every = max(1, len(labelled) // ANCHORS)
        images, sets = zip(*(labelled[i] for i in range(0, len(labelled), every)), strict=True)
        self.net.anchor(torch.stack(images), allowed_sets(torch.stack(sets)))

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The negative bound, in nats per pixel."""
        objective = warmed_up(self.objective, step)
        return negative_elbo(self.net, batch.x, batch.allowed, objective)

    def predict(self, x: Tensor) -> Tensor:
        """p(y | z) with one draw of z."""
        return predict(self.net, x)

    def figures(self, batch: Batch) -> dict[str, float]:
        """The bound's terms, see :func:`~pyro_stitchnet.training.diagnostics.diagnose`."""
        return diagnose(self.net, batch)

    def why_not_finite(self, batch: Batch) -> str:
        """Which terms, on which slices."""
        return why_not_finite(self.net, batch)


def warmed_up(objective: Objective, step: int) -> Objective:
    """The objective of a step (from 1): its KL weight on the way up until ``kl_warmup``."""
    if step >= objective.kl_warmup:
        return objective
    return replace(objective, kl_weight=objective.kl_weight * step / objective.kl_warmup)


def ramp(step: int, length: int) -> float:
    """exp(-5 (1 - t)^2), the rise of a weight over the first steps (Laine & Aila, ICLR 2017)."""
    return math.exp(-5 * (1 - min(step / length, 1)) ** 2) if length else 1.0
