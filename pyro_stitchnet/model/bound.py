"""The bound on the evidence, and the terms that it consists of, from one pass."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_stitchnet.model.checks import check_slices
from pyro_stitchnet.model.classifier_loss import log_allowed
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS

__all__ = ["Bound", "bound"]


@dataclass(frozen=True)
class Bound:
    """The bound of a batch, from one draw of z.

    Attributes:
        loss: the negative objective in nats per pixel, differentiable; a scalar.
        z1: the value of site z1.
        picture: p(x, y | z), a :class:`~pyro_stitchnet.model.distributions.Stitched`; of the SVAE
            alone p(x | z).
        x: the slices, (N, H, W).
        allowed: labels that each pixel may have, bool (N, H, W, K), or None.
        q: q(z_n | x, z_{n+1}) by level n.
        p: p(z_n | z_{n+1}) by level n.
    """

    loss: Tensor
    z1: Tensor
    picture: dist.TorchDistribution
    x: Tensor
    allowed: Tensor | None
    q: dict[int, dist.TorchDistribution]
    p: dict[int, dist.TorchDistribution]

    @cached_property
    @torch.no_grad()
    def log_py(self) -> Tensor:
        """log p(y in A | z) of every pixel, (N, H, W); 0 where all labels are allowed."""
        if self.allowed is None or not isinstance(self.picture, Stitched):
            return torch.zeros_like(self.x)
        return log_allowed(self.picture.log_pi, self.allowed)

    @cached_property
    @torch.no_grad()
    def log_px(self) -> Tensor:
        """log p(x | y in A, z) of every pixel, (N, H, W), y summed out over the set A."""
        picture = self.picture
        if isinstance(picture, Stitched):
            picture = picture.given(self.allowed)
        return picture.log_prob(self.x) - self.log_py

    @cached_property
    @torch.no_grad()
    def kl(self) -> dict[int, Tensor]:
        """KL of q(z_n | x, z_{n+1}) from the prior by level n, in nats per pixel of the slice."""
        return {n: kl_divergence(self.q[n], self.p[n]).sum() / self.x.numel() for n in self.q}


def bound(
    net: StitchNet | SliceVAE,
    x: Tensor,
    allowed: Tensor | None = None,
    objective: Objective | None = None,
    *,
    log_q: Tensor | None = None,
) -> Bound:
    """Evaluate the objective with one draw of z; ``bound(...).loss.backward()`` trains.

    With the default objective this is eq. 9.

    Args:
        net: model and guide.
        x: slices (N, H, W) in [0, 1].
        allowed: labels that each pixel may have, bool (N, H, W, K): one label gives the
            labelled term of eq. 9, all labels the unlabelled term. None allows all everywhere.
        objective: label term and weights; the article's by default.
        log_q: log q(y | x), (N, H, W, K), for a label term with y in the guide; the classifier's by
            default.

    Raises:
        TypeError: ``x`` is not a tensor.
        ValueError: :func:`~pyro_stitchnet.model.checks.check_slices` refuses ``x``, the label
            term needs a classifier that the model does not have, or ``log_q`` is given for an SVAE
            alone. NaN among grey values gives a
            loss of NaN or an error of Pyro.
    """
    check_slices(net, x, nan=True)
    objective = objective or net.objective
    per_pixel = poutine.scale(scale=1 / x.numel())
    guide = net.guide
    if log_q is not None:
        if not isinstance(net, StitchNet):
            raise ValueError("log_q is for a StitchNet; the SVAE alone has no labels")
        guide = partial(net.guide, log_q=log_q)
    with net.memo.one_pass(), _Sites() as sites:
        loss = objective.labels.elbo().differentiable_loss(
            per_pixel(net.model), per_pixel(guide), x, allowed, objective
        )
        picture = net.picture(sites.z1)
    return Bound(loss, sites.z1, picture, x, allowed, sites.q, sites.p)


class _Sites(Messenger):
    """Records the z sites: the guide runs first, then the model on the guide's values."""

    levels = {f"z{n}": n for n in range(1, LEVELS + 1)}
    z1: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.q: dict[int, Any] = {}
        self.p: dict[int, Any] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        level = self.levels.get(msg["name"])
        if level is None:
            return
        (self.p if level in self.q else self.q)[level] = msg["fn"]
        if level == 1:
            self.z1 = msg["value"]
