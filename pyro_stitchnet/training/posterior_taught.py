"""A StitchNet whose posterior of y teaches q(y | x) what labels leave open."""

from dataclasses import replace
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_stitchnet.data.augment import random_box
from pyro_stitchnet.data.batches import Batch
from pyro_stitchnet.nn.unet import UNet
from pyro_stitchnet.objective import negative_elbo
from pyro_stitchnet.presets import Objective
from pyro_stitchnet.sets import dice_loss, log_allowed
from pyro_stitchnet.stitchnet import StitchNet
from pyro_stitchnet.training.average import Teacher
from pyro_stitchnet.training.learner import ElboLearner, warmed_up

__all__ = ["PosteriorTaught", "learner_of"]

DECAY = 0.99  # of the teacher's average
TEMPERATURE = 0.5  # of what is taught: below 1 it is surer than the posterior


class PosteriorTaught(ElboLearner):
    """The bound, and beside it the posterior of y as the truth of what labels leave open.

    First, for ``posterior_after`` steps, annotated slices alone teach. Then, where a pixel may have
    several labels A, q(y | x) of a strong view of the slice is drawn to ::

        r(y)  in proportion to  1[y in A] q'(y | x) p(x | y, z)

    of its weak view, with q' the moving average of q as the first steps left it, as
    :meth:`~pyro_stitchnet.stitchnet.StitchNet.log_posterior` weighs the two, sharpened. This is a
    step of expectation maximisation with q' as the prior of y. Unlabelled slices and sets of
    labels, such as "infection", are one and the same case.

    q' stays as it is, and so do the averages of batch norm from then on: a teacher that followed
    its pupil called the dark surroundings of the other source's slices healthy lung, a little more
    at every step (docs/model.md). Slices with and without labels exchange boxes, as in BCP (Bai et
    al., CVPR 2023): so true labels are seen beside taught ones. What makes strong views, brightness
    and blur, is FixMatch's (Sohn et al., NeurIPS 2020), brightness much less.
    """

    strong_views = 1
    jitter = 0.1  # density tells ground glass from consolidation

    def __init__(self, net: StitchNet, objective: Objective) -> None:
        """Take the model, which must have q(y | x), and what it maximises.

        Raises:
            ValueError: the model has no q(y | x).
        """
        super().__init__(net, objective)
        if net.segmenter is None:
            raise ValueError("posterior_weight needs a guide with q(y | x); set segmenter=True")
        self.teacher = Teacher(net.segmenter, DECAY)
        self._alone = True

    @property
    def segmenter(self) -> UNet:
        """The network of q(y | x)."""
        assert self.net.segmenter is not None
        return self.net.segmenter

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The negative bound in nats per pixel, and what the posterior teaches."""
        self._alone = step <= self.objective.posterior_after
        if self._alone:
            return super().loss(batch.annotated(), step)
        if self.segmenter.fixed_averages != "all":
            self.segmenter.fixed_averages = "all"
            self.segmenter.train()
        if (batch.allowed.sum(-1) == 1).all():  # nothing is left open
            return super().loss(batch, step)
        net, mute, objective = self.net, batch.unlabelled[:, None, None], self.objective
        # Half a batch on is, where it has as many of both, a slice of the other kind.
        turn = len(batch.x) // 2
        box = random_box(batch.x.shape[-2:]).to(mute.device)
        views = torch.where(mute, batch.strong[0], batch.x)
        views = torch.where(box, views.roll(turn, 0), views)
        log_q = self.segmenter(views.unsqueeze(1)).float().log_softmax(1).movedim(1, -1)
        with net.svae.one_pass(), _Drawn() as drawn:
            # Where every pixel has one label, nobody needs the teacher.
            asked = (batch.allowed.sum(-1) > 1).flatten(1).any(1)
            taught = torch.zeros_like(log_q)
            taught[asked] = self.teacher.log_probabilities(batch.x[asked]).movedim(1, -1)
            # Labels teach q(y | x) of the views, below.
            bound = replace(warmed_up(objective, step), label_weight=0, dice_weight=0)
            loss = negative_elbo(net, batch.x, batch.allowed, bound, log_q=taught)
            with torch.no_grad():
                scores = net.log_posterior(drawn.z1, batch.x, taught) / TEMPERATURE
        target = scores.masked_fill(~batch.allowed, -torch.inf).softmax(-1)
        target, allowed = (
            torch.where(box[..., None], part.roll(turn, 0), part)
            for part in (target, batch.allowed)
        )
        known, several = ~allowed.all(-1), allowed.sum(-1) > 1
        loss = loss + objective.dice_weight * dice_loss(log_q, allowed)
        if known.any():
            loss = loss - objective.label_weight * log_allowed(log_q, allowed)[known].mean()
        cross_entropy = -(target * log_q).sum(-1)[several].mean()
        return loss + objective.posterior_weight * cross_entropy

    def stepped(self) -> None:
        """Move the average, until it teaches."""
        if self._alone:
            self.teacher.update_parameters(self.segmenter)


class _Drawn(Messenger):
    """Keeps the draw of z1 that the programs within make."""

    z1: Tensor

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] == "z1":
            self.z1 = msg["value"]


def learner_of(net: StitchNet, objective: Objective) -> ElboLearner:
    """What trains a model by an objective."""
    return (PosteriorTaught if objective.posterior_weight else ElboLearner)(net, objective)
