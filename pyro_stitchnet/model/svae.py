"""The shared variational autoencoder: five latent maps, one mapping d -> z for both directions."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn import functional

from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.distributions import SharedNormal, product_of_normals
from pyro_stitchnet.model.memo import Memo, remembered
from pyro_stitchnet.model.nn.blocks import Crush, Expand, UpStep
from pyro_stitchnet.model.nn.checkpointing import recomputed
from pyro_stitchnet.model.nn.encoder import MobileNetPyramid
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.runtime.distributed import all_mean

__all__ = ["LEVELS", "STRIDE", "SVAE", "check_size", "pixel_plates"]

LEVELS = 5
"""Latent maps of the hierarchy, z1 to z5."""

STRIDE = 2**LEVELS
"""Side, in pixels of the encoder's input, of the square that one entry of z5 covers."""

# exp(-10/2) is a standard deviation of 0.7 % of the prior's at the top; float32 stays exact.
LOG_VARIANCE_BOUND = 10.0


class SVAE(nn.Module):
    """The hierarchy of z: p(z5) p(z4 | z5) ... p(z1 | z2), and its posterior given a slice.

    ``model`` and ``guide`` are Pyro programs for the inside of a ``slices`` plate at dim -3. The
    z_n are sites ``z1`` ... ``z5`` of event shape (1, H/2^n, W/2^n).

    Attributes:
        memo: keeps results within one pass; see :class:`~pyro_stitchnet.model.memo.Memo`.
        downsampling: average-pool size before the encoder.
        checkpointing: whether the activations of the top-down networks are computed again in the
            backward pass.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Build the networks that ``config`` describes."""
        super().__init__()
        channels, norm_kind = config.channels, config.norm
        self.memo = Memo()
        self.downsampling = config.downsampling
        self.checkpointing = config.checkpointing
        self.encoder = MobileNetPyramid(
            channels,
            wiring=config.wiring,
            # At another width than 1 only the classifier can start from weights.
            weights=None if config.classifier and config.width != 1 else config.weights,
            width=config.width,
            norm_kind=norm_kind,
        )
        # Level n is at index n - 1 in every list.
        self.crush = nn.ModuleList(Crush(f, norm_kind) for f in channels)
        self.expand = nn.ModuleList(Expand(f, norm_kind) for f in channels)
        self.up = nn.ModuleList(
            UpStep(above, f, norm_kind)
            for above, f in zip(channels[1:], channels[:-1], strict=True)
        )
        self.decoder = UpStep(channels[0], config.decoder_channels, norm_kind)
        # The ladder VAE's own mapping d~ -> z for the priors of z1 to z4.
        self.prior_crush: nn.ModuleList | None = None
        if not config.shared_crush:
            self.prior_crush = nn.ModuleList(Crush(f, norm_kind) for f in channels[:-1])
        if config.start_deviation is not None:
            for crush in (*self.crush, *(self.prior_crush or ())):
                assert isinstance(crush, Crush)
                crush.start_at(config.start_deviation)

    def model(self, shape: tuple[int, ...], objective: Objective) -> Tensor:
        """Draw z5, ..., z1 from the prior.

        Args:
            shape: (N, H, W) of the slices.
            objective: its ``kl_weight`` scales the sites.

        Returns:
            The value of site z1, for :meth:`features`.
        """
        with poutine.scale(scale=objective.kl_weight):
            return self.descend(lambda level, prior: _sample_map(f"z{level}", prior), shape)

    def guide(self, x: Tensor, objective: Objective) -> Tensor:
        """Draw z5, ..., z1 from q(z | x) as the ladder VAE does, from the top.

        Args:
            x: slices (N, H, W) in [0, 1].
            objective: its ``kl_weight`` scales the sites, its ``free_bits`` are added back here.

        Returns:
            The value of site z1.
        """
        estimates = self.bottom_up(x)

        def draw(level: int, prior: dist.Normal) -> Tensor:
            posterior = product_of_normals(estimates[level - 1], prior)
            if objective.free_bits > 0:
                _add_free_bits(f"free_bits_z{level}", posterior, prior, objective.free_bits)
            return _sample_map(f"z{level}", posterior)

        with poutine.scale(scale=objective.kl_weight):
            return self.descend(draw, tuple(x.shape))

    def descend(self, draw: Callable[[int, dist.Normal], Tensor], shape: tuple[int, ...]) -> Tensor:
        """Run the ladder from z5 to z1, each level given the value of the one above.

        Args:
            draw: level and prior (N, 1, h, w) to the level's value (N, 1, 1, 1, h, w).
            shape: (N, H, W) of the slices.

        Returns:
            The value of z1.
        """
        top = [shape[0], 1, *(side // self.downsampling // STRIDE for side in shape[1:])]
        zero = torch.zeros(top, device=next(self.decoder.parameters()).device)
        z = draw(LEVELS, dist.Normal(zero, torch.ones_like(zero)))
        for level in range(LEVELS - 1, 0, -1):
            z = draw(level, self.prior(level, z))
        return z

    @remembered(of="slices")
    def bottom_up(self, x: Tensor, /) -> list[dist.Normal]:
        """The encoder's estimates of z1, ..., z5 from slices (N, H, W), each (N, 1, h, w)."""
        check_size(tuple(x.shape), self.downsampling)
        pyramid = self.encoder(functional.avg_pool2d(x.unsqueeze(1), self.downsampling))
        return [
            _normal(crush(d, generating=False))
            for crush, d in zip(self.crush, pyramid, strict=True)
        ]

    @remembered(of="z")
    def prior(self, level: int, above: Tensor, /) -> dist.Normal:
        """p(z_level | z_{level+1} = ``above``), ``above`` as its site's value; (N, 1, h, w)."""
        d = self.run(self.up[level - 1], self.run(self.expand[level], _as_map(above)))
        crush = (self.prior_crush or self.crush)[level - 1]
        return _normal(crush(d, generating=True))

    def networks(self) -> list[nn.Module]:
        """Encoder, mappings and decoder, for torch.compile."""
        ladder = (*self.crush, *self.expand, *self.up, *(self.prior_crush or ()))
        return [self.encoder, *ladder, self.decoder]

    def features(self, z1: Tensor) -> Tensor:
        """The decoder's features of z1's site value, (N, decoder_channels, H, W) downsampled."""
        return self.run(self.decoder, self.run(self.expand[0], _as_map(z1)))

    def run(self, network: nn.Module, x: Tensor) -> Tensor:
        """``network(x)``; with ``checkpointing`` its activations are not kept."""
        return recomputed(network, x) if self.checkpointing else network(x)


def check_size(shape: tuple[int, ...], downsampling: int = 1) -> None:
    """Refuse slices whose height or width is not a positive multiple of 32 (times downsampling).

    Args:
        shape: of the slices, (N, H, W) with N at least 1.
        downsampling: of the model, see :class:`~pyro_stitchnet.model.config.ModelConfig`.

    Raises:
        ValueError: with the nearest valid sizes.
    """
    if len(shape) != 3 or not shape[0]:
        raise ValueError(f"slices must have shape (N, H, W), N at least 1, got {shape}")
    stride = STRIDE * downsampling
    for name, size in zip(("height", "width"), shape[1:], strict=True):
        if size < stride or size % stride:
            below = size // stride * stride
            valid = f"{below} or {below + stride}" if below else f"{stride}"
            raise ValueError(
                f"slice {name} {size} is not a positive multiple of {stride}; "
                f"resize or pad to {valid}"
            )


def pixel_plates(shape: tuple[int, ...]) -> list[pyro.plate]:
    """Plates of slices, rows and columns: y and x are independent over all three given z."""
    names = ("slices", "rows", "columns")
    return [
        pyro.plate(name, size, dim=i - 3)
        for i, (name, size) in enumerate(zip(names, shape, strict=True))
    ]


def _normal(parameters: tuple[Tensor, Tensor]) -> dist.Normal:
    """Mean and log-variance, from networks of any precision, as a float32 Gaussian."""
    mean, log_variance = (p.float() for p in parameters)
    bounded = log_variance.clamp(-LOG_VARIANCE_BOUND, LOG_VARIANCE_BOUND)
    return dist.Normal(mean, (bounded / 2).exp())


def _sample_map(name: str, d: dist.Normal) -> Tensor:
    """A site for a map (N, 1, h, w): event (1, h, w), with room for the rows and columns plates."""
    return pyro.sample(name, SharedNormal(d.loc[:, None, None], d.scale[:, None, None]).to_event(3))


def _as_map(value: Tensor) -> Tensor:
    """A site's value (N, 1, 1, 1, h, w) as the map (N, 1, h, w)."""
    return value[:, 0, 0]


def _add_free_bits(name: str, q: dist.Normal, p: dist.Normal, free_bits: float) -> None:
    """Charge the difference between ``free_bits`` and a level's KL, a mean over the batch.

    A factor in the guide enters the bound negatively: -KL - (free - KL) = -max(KL, free). Its
    gradient vanishes in expectation while the KL is below the allowance.
    """
    short = (free_bits - all_mean(kl_divergence(q, p).mean())).clamp_min(0)
    pixels = q.loc[0].numel()
    pyro.factor(name, (short * pixels).expand(len(q.loc), 1, 1), has_rsample=True)
