"""What is maximised: the bound on the evidence."""

from typing import TYPE_CHECKING

from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from pyro_stitchnet.presets import Objective

if TYPE_CHECKING:
    from pyro_stitchnet.model.stitchnet import StitchNet

__all__ = ["estimator", "negative_elbo"]


def estimator(objective: Objective) -> ELBO:
    """A fresh estimator of the bound: an ELBO instance remembers the first model that it sees."""
    if objective.labels in ("enumerated", "guided"):
        return TraceEnum_ELBO(max_plate_nesting=3)
    return Trace_ELBO(max_plate_nesting=3)


def negative_elbo(
    net: "StitchNet",
    x: Tensor,
    allowed: Tensor | None = None,
    objective: Objective | None = None,
    *,
    log_q: Tensor | None = None,
) -> Tensor:
    """The objective with one sample of z, negated, in nats per pixel: differentiable, a scalar.

    With the default weights this is eq. 9.

    Args:
        net: the model and guide.
        x: slices (N, H, W) in [0, 1].
        allowed: labels that each pixel may have, bool (N, H, W, K): the labelled and the
            unlabelled term are its two ends. ``None``: nothing is labelled.
        objective: weights; the article's if left out.
        log_q: log q(y | x) where y is guided, (N, H, W, K); the segmenter's if left out.
    """
    objective = objective or Objective()
    per_pixel = poutine.scale(scale=1 / x.numel())
    with net.svae.one_pass():
        return estimator(objective).differentiable_loss(
            per_pixel(net.model), per_pixel(net.guide), x, allowed, objective, log_q=log_q
        )
