"""The segmenter of a model as plain tensors: no draws, no Pyro, ready to be traced."""

from typing import get_args

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_stitchnet.model.distributions import product_of_normals
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import STRIDE, SVAE
from pyro_stitchnet.posterior import ReadOut

__all__ = ["TraceableSegmenter", "mean_z1"]


class TraceableSegmenter(nn.Module):
    """What :func:`~pyro_stitchnet.posterior.segment` answers with ``samples=0``, as a network.

    Attributes:
        read_out: which probabilities.
        stride: of which height and width must be multiples.
    """

    def __init__(self, net: StitchNet, read_out: ReadOut | None = None) -> None:
        """Take a trained model, which is put into evaluation mode.

        Args:
            net: the model.
            read_out: ``"guide"`` is q(y | x); ``"prior"`` p(y | z) and ``"posterior"`` p(y | x, z),
                both with z at each level's mean. By default the last for a model that has q(y | x),
                else p(y | z).

        Raises:
            ValueError: the read-out is unknown, or the model has no q(y | x).
        """
        super().__init__()
        chosen: ReadOut = read_out or ("posterior" if net.segmenter else "prior")
        if chosen not in get_args(ReadOut):
            raise ValueError(f"read_out {chosen!r} is unknown; choose one of {get_args(ReadOut)}")
        if chosen == "guide" and net.segmenter is None:
            raise ValueError("this model has no q(y | x) to read; choose 'prior' or 'posterior'")
        self.net, self.read_out = net.eval(), chosen
        self.stride = STRIDE if chosen == "guide" else STRIDE * net.config.shrink

    def forward(self, image: Tensor) -> Tensor:
        """Map slices (N, 1, H, W) in [0, 1] to label probabilities (N, K, H, W)."""
        x = image[:, 0]
        if self.read_out == "guide":
            return self.net.log_q(x).exp().movedim(-1, 1)
        z1 = mean_z1(self.net.svae, x)
        if self.read_out == "prior":
            return self.net.log_pi(z1).exp().movedim(-1, 1)
        return self.net.log_posterior(z1, x).softmax(-1).movedim(-1, 1)


def mean_z1(svae: SVAE, x: Tensor) -> Tensor:
    """The value of site z1 when every level of q(z | x) takes its mean.

    This is the SVAE's guide without its sites, which a tracer cannot follow: plates and messengers
    hold sizes as plain numbers.

    Args:
        svae: the hierarchy.
        x: slices (N, H, W) in [0, 1].
    """
    z = None
    for level, estimate in reversed(list(enumerate(svae.bottom_up(x), 1))):
        if z is None:
            prior = dist.Normal(torch.zeros_like(estimate.loc), torch.ones_like(estimate.scale))
        else:
            prior = svae.prior(level, z)
        z = product_of_normals(estimate, prior).loc[:, None, None]
    assert z is not None
    return z
