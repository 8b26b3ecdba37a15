"""A small very deep VAE (Child, ICLR 2021) of CT slices, in plain PyTorch.

It differs from Child's models of images in its size (19 levels of z for 45 and more), in one
discretised logistic per pixel for a mixture of ten, and in its optimiser, which is that of the
models it is compared with.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.model.likelihoods import FAMILIES
from pyro_stitchnet.training.learner import Learner, LossOutput

Z = 16  # channels of z in every block
ENCODER = {1: 3, 2: 3, 4: 3, 8: 2, 16: 2, 32: 1, 64: 1}
"""Blocks of the encoder by pixels of the slice per entry."""
DECODER = {64: 1, 32: 2, 16: 2, 8: 3, 4: 4, 2: 4, 1: 3}
"""Top-down blocks, each with its own z."""


class Block(nn.Sequential):
    """A bottleneck of four convolutions, without normalisation."""

    def __init__(self, inputs: int, width: int, outputs: int, last_scale: float = 1.0) -> None:
        """Build it; the last weights are multiplied by ``last_scale``."""
        middle = width // 4
        last = nn.Conv2d(middle, outputs, 1)
        with torch.no_grad():
            last.weight.mul_(last_scale)
        super().__init__(
            nn.GELU(),
            nn.Conv2d(inputs, middle, 1),
            nn.GELU(),
            nn.Conv2d(middle, middle, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(middle, middle, 3, padding=1),
            nn.GELU(),
            last,
        )


class TopDown(nn.Module):
    """A top-down block: p(z | above), q(z | above, x), and the features below."""

    def __init__(self, width: int, scale: float) -> None:
        """Build its networks; ``scale`` is that of the residual branches."""
        super().__init__()
        self.prior = Block(width, width, 2 * Z + width, last_scale=0)
        self.posterior = Block(2 * width, width, 2 * Z)
        self.project = nn.Conv2d(Z, width, 1)
        self.residual = Block(width, width, width, scale)
        with torch.no_grad():
            self.project.weight.mul_(scale)

    def forward(self, h: Tensor, encoded: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the features below, and the KL of each slice (None for a draw of the prior)."""
        mean, log_scale, more = self.prior(h).split([Z, Z, h.shape[1]], dim=1)
        prior = Normal(mean.float(), log_scale.float().exp())
        kl, chosen = None, prior
        if encoded is not None:
            mean, log_scale = self.posterior(torch.cat([h, encoded], dim=1)).chunk(2, dim=1)
            chosen = Normal(mean.float(), log_scale.float().exp())
            kl = kl_divergence(chosen, prior).flatten(1).sum(1)
        h = h + more + self.project(chosen.rsample())
        return h + self.residual(h), kl


class VDVAE(Learner):
    """The model and its bound."""

    uses_labels = False

    def __init__(self, width: int, size: int) -> None:
        """Build the networks for slices of ``size`` x ``size``."""
        super().__init__()
        blocks = sum(DECODER.values())
        scale = math.sqrt(1 / blocks)
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.encoder = nn.ModuleDict(
            {
                str(stride): nn.ModuleList(
                    Block(width, width, width, math.sqrt(1 / sum(ENCODER.values())))
                    for _ in range(number)
                )
                for stride, number in ENCODER.items()
            }
        )
        self.decoder = nn.ModuleDict(
            {
                str(stride): nn.ModuleList(TopDown(width, scale) for _ in range(number))
                for stride, number in DECODER.items()
            }
        )
        self.bias = nn.ParameterDict(
            {
                str(stride): nn.Parameter(torch.zeros(1, width, size // stride, size // stride))
                for stride in DECODER
            }
        )
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.last = nn.Conv2d(width, 2, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)

    def encode(self, x: Tensor) -> dict[str, Tensor]:
        """The features of slices (N, H, W) at every stride."""
        h, features = self.first((x.unsqueeze(1) - 0.5) * 4), {}
        for stride, blocks in self.encoder.items():
            if stride != "1":
                h = functional.avg_pool2d(h, 2)
            for block in blocks:
                h = h + block(h)
            features[stride] = h
        return features

    def decode(self, encoded: dict[str, Tensor] | None, number: int) -> tuple[Tensor, list[Tensor]]:
        """Return the parameters of every pixel, (N, 2, H, W), and the KL of every block."""
        h, kls = torch.zeros_like(self.bias[str(max(DECODER))]).repeat(number, 1, 1, 1), []
        for stride, blocks in self.decoder.items():
            if h.shape[-1] != self.bias[stride].shape[-1]:
                h = functional.interpolate(h, scale_factor=2)
            h = h + self.bias[stride]
            for block in blocks:
                h, kl = block(h, None if encoded is None else encoded[stride])
                if kl is not None:
                    kls.append(kl)
        return self.last(h * self.gain).float(), kls

    def nats(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The negative bound of slices (N, H, W), and the KL of every block."""
        maps, kls = self.decode(self.encode(x), len(x))
        picture = FAMILIES["discretised-logistic"](maps[:, 0], maps[:, 1])
        return sum(kls) - picture.log_prob(x).flatten(1).sum(1), kls

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """The negative bound in nats per pixel."""
        return LossOutput(self.nats(batch.x)[0].mean() / batch.x[0].numel())

    def kl_by_stride(self, x: Tensor) -> dict[str, float]:
        """The KL in nats per pixel of the slice, by stride."""
        _, kls = self.nats(x)
        ends = [0, *torch.tensor(list(DECODER.values())).cumsum(0).tolist()]
        return {
            stride: float(sum(kls[a:b]).mean()) / x[0].numel()
            for stride, (a, b) in zip(self.decoder, pairwise(ends), strict=True)
        }

    def draw(self, number: int) -> Tensor:
        """Mean pictures of draws from the prior, (N, H, W)."""
        maps, _ = self.decode(None, number)
        return FAMILIES["discretised-logistic"](maps[:, 0], maps[:, 1]).mean
