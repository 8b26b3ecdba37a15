"""The shared variational autoencoder: five latent maps, one mapping d -> z for both directions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn import functional

from pyro_stitchnet.model.distributions import SharedNormal, product_of_normals
from pyro_stitchnet.model.nn.blocks import Crush, Expand, UpStep
from pyro_stitchnet.model.nn.encoder import MobileNetPyramid
from pyro_stitchnet.presets import ModelConfig, Objective
from pyro_stitchnet.runtime.distributed import all_mean

__all__ = ["LEVELS", "SVAE", "check_size"]

LEVELS = 5
"""Latent maps of the hierarchy, z1 to z5."""

STRIDE = 2**LEVELS

# exp(-10/2) is a standard deviation of 0.7 % of the prior's at the top; float32 stays exact.
LOG_VARIANCE_BOUND = 10.0

# The questions that are about slices, not about z.
OF_SLICES = ("bottom-up", "segmenter")

Answer = TypeVar("Answer")


class SVAE(nn.Module):
    """The hierarchy of z: p(z5) p(z4 | z5) ... p(z1 | z2), and its posterior given a slice.

    ``model`` and ``guide`` are Pyro programs to run inside a ``slices`` plate at dim -3. The z_n
    are sites ``z1`` ... ``z5`` of event shape (1, H/2^n, W/2^n).
    """

    def __init__(self, config: ModelConfig) -> None:
        """Build the networks that ``config`` describes."""
        super().__init__()
        channels, norm_kind = config.channels, config.norm
        self.shrink = config.shrink
        self.encoder = MobileNetPyramid(
            channels,
            wiring=config.wiring,
            # With a segmenter they are first of all its own.
            weights=None if config.segmenter and config.width != 1 else config.weights,
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
        self._answers: dict[tuple[str, int], tuple[Tensor, object]] | None = None

    def model(self, shape: tuple[int, ...], objective: Objective) -> Tensor:
        """Draw z5, ..., z1 from the prior.

        Args:
            shape: slices, rows, columns of the picture.
            objective: its ``kl_weight`` scales the sites.

        Returns:
            z1, as its site's value; :meth:`features` takes it on.
        """
        slices, rows, columns = shape[0], *(side // self.shrink // STRIDE for side in shape[1:])
        z = None
        with poutine.scale(scale=objective.kl_weight):
            for level in range(LEVELS, 0, -1):
                if z is None:
                    like = next(self.decoder.parameters())
                    zero = torch.zeros(slices, 1, rows, columns, device=like.device)
                    prior = dist.Normal(zero, torch.ones_like(zero))
                else:
                    prior = self.prior(level, z)
                z = _sample_map(f"z{level}", prior)
        assert z is not None
        return z

    def guide(self, x: Tensor, objective: Objective) -> Tensor:
        """Draw z5, ..., z1 from q(z | x), level by level from the top, as the ladder VAE does.

        Args:
            x: slices (N, H, W) in [0, 1].
            objective: its ``kl_weight`` scales the sites; its ``free_bits`` are paid back here.

        Returns:
            z1, as its site's value.
        """
        z = None
        estimates = self.bottom_up(x)
        with poutine.scale(scale=objective.kl_weight):
            for level in range(LEVELS, 0, -1):
                estimate = estimates[level - 1]
                if z is None:
                    prior = dist.Normal(
                        torch.zeros_like(estimate.loc), torch.ones_like(estimate.scale)
                    )
                else:
                    prior = self.prior(level, z)
                posterior = product_of_normals(estimate, prior)
                if objective.free_bits > 0:
                    _pay_free_bits(f"free_bits_z{level}", posterior, prior, objective.free_bits)
                z = _sample_map(f"z{level}", posterior)
        assert z is not None
        return z

    def bottom_up(self, x: Tensor) -> list[dist.Normal]:
        """The encoder's estimates of z1, ..., z5 from slices (N, H, W), each (N, 1, h, w)."""
        check_size(tuple(x.shape), self.shrink)

        def ask() -> list[dist.Normal]:
            pyramid = self.encoder(functional.avg_pool2d(x.unsqueeze(1), self.shrink))
            return [
                _normal(crush(d, generating=False))
                for crush, d in zip(self.crush, pyramid, strict=True)
            ]

        return self.once("bottom-up", x, ask)

    def prior(self, level: int, above: Tensor) -> dist.Normal:
        """p(z_level | z_{level+1} = ``above``), ``above`` as its site's value; (N, 1, h, w)."""

        def ask() -> dist.Normal:
            d = self.up[level - 1](self.expand[level](_as_map(above)))
            return _normal(self.crush[level - 1](d, generating=True))

        return self.once("prior", above, ask)

    def features(self, z1: Tensor) -> Tensor:
        """The decoder's features of z1's site value, (N, decoder_channels, H, W) / ``shrink``."""
        return self.decoder(self.expand[0](_as_map(z1)))

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Within, model and guide ask a network about one and the same z or x once, not twice.

        The guide needs the priors for its posterior, and the model, replayed on the guide's z,
        needs them again; further draws of z for the same slices need no further encoding. Within
        another it does nothing: the outer one ends it.
        """
        if self._answers is not None:
            yield
            return
        self._answers = {}
        try:
            yield
        finally:
            self._answers = None

    @contextmanager
    def one_draw(self) -> Iterator[None]:
        """Within :meth:`one_pass`, around what is asked about one draw of z and not again.

        Afterwards only what was answered about slices is still known, so that memory does not grow
        with the number of draws.
        """
        yield
        if self._answers is not None:
            self._answers = {key: a for key, a in self._answers.items() if key[0] in OF_SLICES}

    def once(self, question: str, about: Tensor, ask: Callable[[], Answer]) -> Answer:
        """``ask()``, or within :meth:`one_pass` what it answered about this very tensor before."""
        if self._answers is None:
            return ask()
        key = (question, id(about))
        if key not in self._answers:
            self._answers[key] = (about, ask())  # kept, so that its id stays its own
        return self._answers[key][1]  # type: ignore[return-value]


def check_size(shape: tuple[int, ...], shrink: int = 1) -> None:
    """Refuse slices whose height or width is not a positive multiple of 32 (times ``shrink``).

    Args:
        shape: of the slices, (N, H, W) with N at least 1.
        shrink: of the model, see :class:`~pyro_stitchnet.presets.ModelConfig`.

    Raises:
        ValueError: with the nearest right sizes.
    """
    if len(shape) != 3 or not shape[0]:
        raise ValueError(f"slices must have shape (N, H, W), N at least 1, got {shape}")
    stride = STRIDE * shrink
    for name, size in zip(("height", "width"), shape[1:], strict=True):
        if size < stride or size % stride:
            below = size // stride * stride
            right = f"{below} or {below + stride}" if below else f"{stride}"
            raise ValueError(
                f"slice {name} {size} is not a positive multiple of {stride}; "
                f"resize or pad to {right}"
            )


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


def _pay_free_bits(name: str, q: dist.Normal, p: dist.Normal, free_bits: float) -> None:
    """Charge what a level's KL, as a mean over the batch, falls short of ``free_bits``.

    A factor in the guide enters the bound negatively: -KL - (free - KL) = -max(KL, free), whose
    gradient vanishes in expectation while the level is under its allowance.
    """
    short = (free_bits - all_mean(kl_divergence(q, p).mean())).clamp_min(0)
    pixels = q.loc[0].numel()
    pyro.factor(name, (short * pixels).expand(len(q.loc), 1, 1), has_rsample=True)
