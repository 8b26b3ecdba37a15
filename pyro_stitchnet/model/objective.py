"""What is maximised: how labels enter the bound, and the weight of the KL."""

from dataclasses import dataclass, field, replace

from pyro_stitchnet.model.label_terms import AnyLabelTerm, Enumerated
from pyro_stitchnet.runtime.ranges import CountOrZero, Positive, Weight, check_ranges

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """The terms of the bound.

    Attributes:
        labels: how the label y of each pixel enters, with its options; see
            `pyro_stitchnet.model.label_terms`.
        kl_weight: factor on the z sites of model and guide (1 is the ELBO).
        kl_warmup: steps over which training raises the KL weight linearly from near 0.
        free_bits: nats per pixel of a latent map that each level may use at no cost: the bound has
            max(KL, free_bits) in place of a level's KL (Kingma et al. 2016).
    """

    labels: AnyLabelTerm = field(default_factory=Enumerated)
    kl_weight: Positive = 1.0  # poutine.scale refuses 0; a warm-up starts at 1 / kl_warmup
    kl_warmup: CountOrZero = 0
    free_bits: Weight = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)

    def at_step(self, step: int) -> "Objective":
        """Return the objective of a training step (from 1), its KL weight rising to its value."""
        if step >= self.kl_warmup:
            return self
        return replace(self, kl_weight=self.kl_weight * step / self.kl_warmup)
