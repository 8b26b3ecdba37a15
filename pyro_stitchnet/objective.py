"""What is maximised, and every weight in it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

if TYPE_CHECKING:
    from pyro_stitchnet.stitchnet import StitchNet

__all__ = ["LabelTerm", "Objective", "negative_elbo"]

LabelTerm = Literal["enumerated", "marginal", "relaxed", "expected"]


@dataclass(frozen=True)
class Objective:
    """The terms of the bound.

    Attributes:
        labels: how the label y of each pixel enters. ``"enumerated"``: a Pyro site summed out by
            ``TraceEnum_ELBO``. ``"marginal"``: the same number in closed form. ``"relaxed"``: a
            Gumbel-softmax sample, also drawn by the guide: a bound of the relaxed model's evidence,
            whose KL is that of the relaxed labels, larger than that of the labels.
            ``"expected"``: the reference code's SUM_k pi_k log p_k(x) on every pixel, with a focal
            loss on labels beside it.
        label_weight: factor on log p(y in A | z), 1 in eq. 9 (M2's alpha, Kingma et al. 2014).
            Grey values outweigh labels by far, so labels alone are learnt slowly.
        kl_weight: factor on the z sites of model and guide (1 is the ELBO).
        kl_warmup: steps over which training raises ``kl_weight`` linearly from near 0.
        free_bits: nats per pixel of a latent map that each level may use at no cost: the bound
            has max(KL, free_bits) in place of a level's KL (Kingma et al. 2016).
        temperature: of the relaxed y.
        focal_weight: the reference code's factor on the focal loss; ``"expected"`` only.
        focal_gamma: exponent of the focal loss.
    """

    labels: LabelTerm = "enumerated"
    label_weight: float = 1.0
    kl_weight: float = 1.0
    kl_warmup: int = 0
    free_bits: float = 0.0
    temperature: float = 0.5
    focal_weight: float = 100.0
    focal_gamma: float = 2.0

    def __post_init__(self) -> None:
        """Refuse weights outside their range."""
        if self.labels not in get_args(LabelTerm):
            raise ValueError(f"labels={self.labels!r} is not one of {get_args(LabelTerm)}")
        if self.kl_weight <= 0:
            # poutine.scale refuses 0; a warm-up starts at 1e-6.
            raise ValueError(f"kl_weight must be above 0, got {self.kl_weight}")
        if self.temperature <= 0 or self.free_bits < 0 or self.kl_warmup < 0:
            raise ValueError("temperature must be above 0, free_bits and kl_warmup at least 0")

    def elbo(self) -> ELBO:
        """A fresh estimator: an ELBO instance remembers the first model that it sees."""
        if self.labels == "enumerated":
            return TraceEnum_ELBO(max_plate_nesting=3)
        return Trace_ELBO(max_plate_nesting=3)


def negative_elbo(
    net: "StitchNet", x: Tensor, allowed: Tensor | None = None, objective: Objective | None = None
) -> Tensor:
    """The objective with one sample of z, negated, in nats per pixel: differentiable, a scalar.

    With the default weights this is eq. 9.

    Args:
        net: the model and guide.
        x: slices (N, H, W) in [0, 1].
        allowed: labels that each pixel may have, bool (N, H, W, K): the labelled and the
            unlabelled term are its two ends. ``None``: nothing is labelled.
        objective: weights; the article's if left out.
    """
    objective = objective or Objective()
    per_pixel = poutine.scale(scale=1 / x.numel())
    with net.svae.one_pass():
        return objective.elbo().differentiable_loss(
            per_pixel(net.model), per_pixel(net.guide), x, allowed, objective
        )
