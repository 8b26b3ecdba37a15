"""The SVAE alone in training."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.posterior import seeded
from pyro_stitchnet.training.learner import Learner, LossOutput
from pyro_stitchnet.training.validation import active_levels, bits_per_dimension

__all__ = ["SliceVAELearner"]


class SliceVAELearner(Learner):
    """A model of slices without labels; its weights are chosen by bits per dimension."""

    uses_labels = False

    def __init__(self, net: SliceVAE, objective: Objective) -> None:
        """Take the model, shared with the caller, and its objective."""
        super().__init__()
        self.net, self.objective = net, objective

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """The negative bound in nats per pixel."""
        result = bound(self.net, batch.x, None, self.objective.at_step(step))
        return LossOutput(result.loss, result)

    def probabilities(self, x: Tensor) -> Tensor:
        """Raise: there are no labels."""
        raise ValueError("the SVAE alone has no labels")

    def networks(self) -> Iterable[nn.Module]:
        """Encoder, decoder and head."""
        return [*self.net.svae.networks(), self.net.head]

    @torch.no_grad()
    def validate(self, slices: Slices) -> tuple[float, dict[str, float]]:
        """Bits per dimension by the evidence lower bound; the score is its negative."""
        device = next(self.parameters()).device
        with seeded(0, device):  # the same draws of z at every validation
            bits = float(bits_per_dimension(self.net, slices.images.to(device)).mean())
        active = active_levels(self.net, slices)
        return -bits, {"validation/bits_per_dimension": bits, **active}

    def metrics(self, batch: Batch, output: LossOutput) -> Mapping[str, float]:
        """The terms of the bound in nats per pixel: log p(x | z) and the KL of each level."""
        assert output.bound is not None
        kl = {f"kl/z{n}": float(value) for n, value in output.bound.kl.items()}
        terms = {"elbo/log_px": float(output.bound.log_px.mean()), "elbo/kl": sum(kl.values())}
        return {**terms, **kl}
