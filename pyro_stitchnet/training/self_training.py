"""A StitchNet whose posterior of y teaches q(y | x) what labels leave open."""

from dataclasses import replace
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.model.classifier_loss import dice_loss, log_allowed
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.model.objective import negative_elbo
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import Objective
from pyro_stitchnet.training.average import Teacher
from pyro_stitchnet.training.learner import ElboLearner, ramp, warmed_up

__all__ = ["PosteriorTaught", "learner_of"]

DECAY = 0.99  # of the teacher's average


class PosteriorTaught(ElboLearner):
    """The bound, and beside it the posterior of y where labels leave something open.

    Where a pixel may have several labels A, q(y | x) of a strong view of the slice is drawn, in
    squared difference, to ::

        r(y)  in proportion to  1[y in A] q'(y | x) p(x | y, z)

    of its weak view, with q' the moving average of q, as
    :meth:`~pyro_stitchnet.model.stitchnet.StitchNet.log_posterior` weighs the two. This is Mean Teacher
    (Tarvainen & Valpola, NeurIPS 2017) whose teacher has looked at the grey values, and a step of
    expectation maximisation with q' as the prior of y. Unlabelled slices and sets of labels, such
    as "infection", are one and the same case.

    It is gentle: r is not sharpened, and its weight is small and rises slowly. Sharpened targets,
    taught by cross-entropy, went with less infection found elsewhere (docs/study.md).
    """

    strong_views = 1

    def __init__(self, net: StitchNet, objective: Objective) -> None:
        """Take the model, which must have q(y | x), and what it maximises.

        Raises:
            ValueError: the model has no q(y | x).
        """
        super().__init__(net, objective)
        if net.segmenter is None:
            raise ValueError("posterior_weight needs a guide with q(y | x); set segmenter=True")
        self.teacher = Teacher(net.segmenter, DECAY)

    @property
    def segmenter(self) -> UNet:
        """The network of q(y | x)."""
        assert self.net.segmenter is not None
        return self.net.segmenter

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The negative bound in nats per pixel, and what the posterior teaches."""
        net, objective = self.net, warmed_up(self.objective, step)
        known, several = ~batch.allowed.all(-1), batch.allowed.sum(-1) > 1
        told, asked = (pixels.flatten(1).any(1) for pixels in (known, several))
        with net.svae.one_pass(), _Drawn() as drawn:
            # Where every pixel has one label, nobody needs the teacher.
            taught = torch.zeros(batch.allowed.shape, device=batch.x.device)
            if asked.any():
                taught[asked] = self.teacher.log_probabilities(batch.x[asked]).movedim(1, -1)
            # Labels teach q(y | x) below.
            bound = replace(objective, label_weight=0, dice_weight=0)
            loss = negative_elbo(net, batch.x, batch.allowed, bound, log_q=taught)
            with torch.no_grad():
                scores = net.log_posterior(drawn.z1, batch.x, taught)
        if told.any():  # by themselves, as a U-Net sees them
            log_q, allowed = self._log_q(batch.x[told]), batch.allowed[told]
            loss = loss + objective.dice_weight * dice_loss(log_q, allowed)
            log_p = log_allowed(log_q, allowed)[known[told]]
            loss = loss - objective.label_weight * log_p.mean()
        if asked.any():
            posterior = scores.masked_fill(~batch.allowed, -torch.inf).softmax(-1)
            q = self._log_q(batch.strong[0, asked]).exp()
            differences = (q - posterior[asked]).square().sum(-1)[several[asked]]
            weight = objective.posterior_weight * ramp(step, objective.posterior_warmup)
            loss = loss + weight * differences.mean()
        return loss

    def stepped(self) -> None:
        """Move the average."""
        self.teacher.update_parameters(self.segmenter)

    def _log_q(self, x: Tensor) -> Tensor:
        """log q(y | x) of slices (N, H, W), (N, H, W, K), in 32 bits."""
        return self.segmenter(x.unsqueeze(1)).float().log_softmax(1).movedim(1, -1)


class _Drawn(Messenger):
    """Keeps the draw of z1 that the programs within make."""

    z1: Tensor

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] == "z1":
            self.z1 = msg["value"]


def learner_of(net: StitchNet, objective: Objective) -> ElboLearner:
    """What trains a model by an objective."""
    return (PosteriorTaught if objective.posterior_weight else ElboLearner)(net, objective)
