"""What the training loop trains: networks with their loss, predictions and metrics."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import Slices, SliceSet, allowed_sets
from pyro_stitchnet.model.bound import Bound, bound
from pyro_stitchnet.model.classifier_loss import ClassifierLoss
from pyro_stitchnet.model.label_terms import Guided
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import probabilities
from pyro_stitchnet.training.diagnostics import bound_metrics, not_finite_terms
from pyro_stitchnet.training.validation import active_levels, validation_dice

__all__ = ["ElboLearner", "Learner", "LossOutput", "log_q_in_evaluation_mode", "ramp"]

MOST_SLICES = 200  # from which grey values are learnt


@dataclass(frozen=True)
class LossOutput:
    """A loss, and what its pass computed on the way.

    Attributes:
        loss: a differentiable scalar.
        bound: the bound of the batch, where the loss has one.
        log_q: log q(y | x) of the bound's slices, (N, H, W, K), where it was computed for their
            labels.
    """

    loss: Tensor
    bound: Bound | None = None
    log_q: Tensor | None = None


class Learner(nn.Module):
    """Networks in training.

    Attributes:
        strong_views: how many strongly augmented views of each slice its batches must hold.
        uses_labels: whether labelled and unlabelled slices are separate streams.
    """

    strong_views = 0
    uses_labels = True

    def begin(self, labelled: SliceSet, *, steps: int, new: bool = True) -> None:
        """Prepare for training on these labelled slices.

        A resumed run does not call it: keep what later steps need in buffers.

        Args:
            labelled: the slices.
            steps: optimiser steps of the training.
            new: whether the weights are new; otherwise they come from another model.
        """

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """Compute the loss of a batch.

        Args:
            batch: slices and label sets.
            step: number of the optimiser step, from 1.
        """
        raise NotImplementedError

    def probabilities(self, x: Tensor) -> Tensor:
        """Label probabilities (N, K, H, W) of slices (N, H, W), in evaluation mode."""
        raise NotImplementedError

    def pass_for_statistics(self, batch: Batch, step: int) -> None:
        """Pass a batch once through the networks that are evaluated, for batch norm's statistics.

        It is called in training mode. A learner whose loss passes other views of the slices, or
        the same network more than once, needs a pass of its own.
        """
        self.loss(batch, step)

    def validate(self, slices: Slices) -> tuple[float, dict[str, float]]:
        """Return the score that chooses weights (higher is better), and the metrics to log."""
        return validation_dice(self.probabilities, slices, next(self.parameters()).device)

    def stepped(self) -> None:
        """Update what follows the weights after a step."""

    def networks(self) -> Iterable[nn.Module]:
        """The networks that torch.compile may compile, each by itself."""
        return self.children()

    def metrics(self, batch: Batch, output: LossOutput) -> Mapping[str, float]:
        """Metrics to log with the loss, from the pass that computed it."""
        return {}

    def why_not_finite(self, batch: Batch) -> str:
        """Describe which part of a batch's loss was not finite."""
        return "the loss of the batch, or its gradient, is not finite"


class ElboLearner(Learner):
    """A StitchNet and its bound on the evidence."""

    def __init__(self, net: StitchNet, objective: Objective) -> None:
        """Take the model, shared with the caller, and its objective."""
        super().__init__()
        self.net, self.objective = net, objective

    @property
    def classifier_loss(self) -> ClassifierLoss | None:
        """The loss of q(y | x) that is added to the bound, for a label term with a classifier."""
        labels = self.objective.labels
        if not isinstance(labels, Guided):
            return None
        return ClassifierLoss(labels.label_weight, labels.dice_weight)

    def begin(self, labelled: SliceSet, *, steps: int, new: bool = True) -> None:
        """Learn the grey values of tissues from at most 200 slices, fully labelled ones first.

        They determine the tissue levels, if the model has them, and the start of anchored styles.
        """
        net = self.net
        if not len(labelled) or (net.levels is None and not net.config.anchored):
            return
        complete = torch.tensor([bool(each) for each in labelled.complete])
        rows = _spread(complete.nonzero(), MOST_SLICES)
        rows += _spread((~complete).nonzero(), MOST_SLICES - len(rows))
        images, sets = zip(*(labelled[i] for i in sorted(rows)), strict=True)
        x, allowed = torch.stack(images), allowed_sets(torch.stack(sets))
        if net.levels is not None:
            net.levels.fit(x, allowed)
        if net.config.anchored and new:
            net.anchor(x, allowed)

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """The negative bound in nats per pixel, and the classifier's loss."""
        objective = self.objective.at_step(step)
        with self.net.memo.one_pass():
            if self.classifier_loss is None:
                result = bound(self.net, batch.x, batch.allowed, objective)
                return LossOutput(result.loss, result)
            log_q = self._log_q(batch)
            result = self.bound(batch, objective, log_q)
            loss = result.loss + self.classifier_loss(log_q, batch.allowed)
        return LossOutput(loss, result, log_q[self.in_bound(batch)])

    def in_bound(self, batch: Batch) -> Tensor:
        """Whether the bound of a model with a classifier takes each slice of a batch, bool (N,).

        It takes every n-th fully labelled slice, and likewise of those with label sets and of the
        unlabelled ones. It takes at least two slices if there are as many, because batch norm needs
        them.
        """
        labels = self.objective.labels
        assert isinstance(labels, Guided)
        every = max(1, min(labels.bound_every, len(batch.x) // 2))
        ambiguous, unlabelled = batch.ambiguous, batch.unlabelled
        kinds = torch.stack([~ambiguous, ambiguous & ~unlabelled, unlabelled], 1)
        place = (kinds.cumsum(0) - 1)[kinds]  # of each slice among those of its kind
        return place % every == 0

    def _log_q(self, batch: Batch) -> Tensor:
        """log q(y | x), (N, H, W, K).

        With ``guide_weight`` 0, the bound does not train q(y | x): unlabelled slices that it takes
        pass through the classifier in evaluation mode, without a gradient and without an effect on
        its running statistics. On other unlabelled slices the result is 0.
        """
        labels, unlabelled = self.objective.labels, batch.unlabelled
        assert isinstance(labels, Guided)
        # Also without a labelled slice: training processes wait for each other's gradients.
        if labels.guide_weight or unlabelled.all() or not unlabelled.any():
            return self.net.log_q(batch.x)
        log_q = torch.zeros(batch.allowed.shape, device=batch.x.device)
        log_q[~unlabelled] = self.net.log_q(batch.x[~unlabelled])
        if (needed := self.in_bound(batch) & unlabelled).any():
            log_q[needed] = log_q_in_evaluation_mode(self.net, batch.x[needed])
        return log_q

    def bound(self, batch: Batch, objective: Objective, log_q: Tensor) -> Bound:
        """The bound of those slices of a batch, given log q(y | x) of all, (N, H, W, K)."""
        part = self.in_bound(batch)
        return bound(self.net, batch.x[part], batch.allowed[part], objective, log_q=log_q[part])

    def probabilities(self, x: Tensor) -> Tensor:
        """The model's own read-out with one draw of z."""
        return probabilities(self.net, x)

    def validate(self, slices: Slices) -> tuple[float, dict[str, float]]:
        """See :meth:`Learner.validate`; adds the share of active units of each level of z."""
        score, metrics = super().validate(slices)
        return score, {**metrics, **active_levels(self.net, slices)}

    def networks(self) -> Iterable[nn.Module]:
        """Encoder, decoder, heads and classifier; not the Pyro programs."""
        return [*self.net.svae.networks(), *self.net.heads, *filter(None, [self.net.classifier])]

    def metrics(self, batch: Batch, output: LossOutput) -> Mapping[str, float]:
        """The metrics of :func:`~pyro_stitchnet.training.diagnostics.bound_metrics`."""
        assert output.bound is not None
        return bound_metrics(output.bound, output.log_q)

    def why_not_finite(self, batch: Batch) -> str:
        """Describe which terms were not finite on which slices."""
        return not_finite_terms(self.net, batch)


def _spread(rows: Tensor, most: int) -> list[int]:
    """Return at most ``most`` of the rows, evenly spread."""
    number = min(most, len(rows))
    return rows.flatten()[torch.linspace(0, len(rows) - 1, number).round().long()].tolist()


@torch.no_grad()
def log_q_in_evaluation_mode(net: StitchNet, x: Tensor) -> Tensor:
    """log q(y | x) of slices (N, H, W), whatever the mode of the network."""
    assert net.classifier is not None
    was_training = net.classifier.training
    net.classifier.eval()
    try:
        return net.log_q(x)
    finally:
        net.classifier.train(was_training)


def ramp(step: int, length: int) -> float:
    """exp(-5 (1 - t)^2), the rise of a weight over the first steps (Laine & Aila, ICLR 2017)."""
    return math.exp(-5 * (1 - min(step / length, 1)) ** 2) if length else 1.0
