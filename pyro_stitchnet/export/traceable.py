"""A model's label probabilities as a network of plain tensors, ready for ``torch.export``."""

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_stitchnet.model.distributions import product_of_normals
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import STRIDE, SVAE
from pyro_stitchnet.posterior.options import ReadOut, ReadOutOptions
from pyro_stitchnet.posterior.segmentation import check_read_out, needs_z, read

__all__ = ["TraceableModel", "mean_z1"]


class TraceableModel(nn.Module):
    """The probabilities of :func:`~pyro_stitchnet.posterior.segment` with ``samples=0``.

    Attributes:
        read_out: the read-out.
        stride: height and width must be multiples of it.
    """

    def __init__(self, net: StitchNet, read_out: ReadOut = "posterior") -> None:
        """Wrap a trained model and put it into evaluation mode.

        Args:
            net: the model.
            read_out: ``"guide"`` is q(y | x); ``"prior"`` is p(y | z) and ``"posterior"``
                p(y | x, z), both with z at the mean of each level.

        Raises:
            ValueError: the read-out is unknown, or the model does not have it.
        """
        super().__init__()
        self.read_out = ReadOutOptions(read_out).read_out
        check_read_out(net, self.read_out)
        self.net = net.eval()
        self.needs_z = needs_z(net, self.read_out)
        self.stride = STRIDE * (net.config.downsampling if self.needs_z else 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map slices (N, 1, H, W) in [0, 1] to label probabilities (N, K, H, W)."""
        x = image[:, 0]
        if not self.needs_z:
            return read(self.net, x, None, self.read_out).movedim(-1, 1)
        z1 = mean_z1(self.net.svae, x)
        if self.read_out == "prior":
            return self.net.log_pi(z1).exp().movedim(-1, 1)
        return read(self.net, x, z1, self.read_out).movedim(-1, 1)


def mean_z1(svae: SVAE, x: Tensor) -> Tensor:
    """The value of site z1 with every level of q(z | x) at its mean.

    It is the SVAE's guide without sample sites. Those cannot be traced, because plates and
    messengers store sizes as plain numbers.

    Args:
        svae: the hierarchy.
        x: slices (N, H, W) in [0, 1].
    """
    estimates = svae.bottom_up(x)

    def mean(level: int, prior: dist.Normal) -> Tensor:
        return product_of_normals(estimates[level - 1], prior).loc[:, None, None]

    return svae.descend(mean, tuple(x.shape))
