"""The building blocks of the SVAE (the article's Fig. 4) and its mappings (Fig. 5).

Every block maps (N, C, H, W) to (N, f, H, W), except :class:`Transpose` and :class:`UpStep`, which
double H and W. Above 64 channels 3x3 convolutions become linear bottlenecks: 1x1 to f/4, 3x3,
1x1 back to f.
"""

import math

from torch import Tensor, nn

from pyro_stitchnet.model.nn.norm import norm, set_role

__all__ = [
    "Crush",
    "Down",
    "Expand",
    "Head",
    "LightSmooth",
    "ResBlock",
    "Smooth",
    "Transpose",
    "Up",
    "UpStep",
    "start_as_identity",
]

BOTTLENECK_ABOVE = 64
START_SCALE = 0.3
"""Factor on the last weights of a :class:`Crush` that starts at a given deviation."""


class ConvNormAct(nn.Sequential):
    """A convolution that keeps the size, normalisation and ReLU."""

    def __init__(self, channels: int, f: int, kernel: int, norm_kind: str) -> None:
        super().__init__(
            nn.Conv2d(channels, f, kernel, padding=kernel // 2),
            norm(norm_kind, f),
            nn.ReLU(inplace=True),
        )


def _pair(channels: int, f: int, norm_kind: str) -> list[nn.Module]:
    """Two 3x3 convolutions to ``f`` channels with an activation between them, or a bottleneck."""
    if f <= BOTTLENECK_ABOVE:
        return [ConvNormAct(channels, f, 3, norm_kind), nn.Conv2d(f, f, 3, padding=1)]
    return [
        ConvNormAct(channels, f // 4, 1, norm_kind),
        ConvNormAct(f // 4, f // 4, 3, norm_kind),
        nn.Conv2d(f // 4, f, 1),
    ]


class ResBlock(nn.Module):
    """Pre-activation residual block: identity plus two 3x3 convolutions (or a bottleneck)."""

    def __init__(self, f: int, norm_kind: str = "batch") -> None:
        """Take the number of channels ``f`` and the kind of normalisation."""
        super().__init__()
        self.residual = nn.Sequential(
            norm(norm_kind, f), nn.ReLU(inplace=True), *_pair(f, f, norm_kind)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, f, H, W) to the same shape."""
        return x + self.residual(x)


class Smooth(nn.Sequential):
    """Two convolutions from ``channels`` to ``f``, three ResBlocks, normalisation and ReLU."""

    depth = 3

    def __init__(self, channels: int, f: int, norm_kind: str = "batch") -> None:
        """Take the channels in, the channels out and the kind of normalisation."""
        super().__init__(
            *_pair(channels, f, norm_kind),
            *(ResBlock(f, norm_kind) for _ in range(self.depth)),
            norm(norm_kind, f),
            nn.ReLU(inplace=True),
        )


class LightSmooth(Smooth):
    """A :class:`Smooth` with one ResBlock."""

    depth = 1


class Down(nn.Sequential):
    """``channels`` to fewer channels ``f``: 3x3, after a 1x1 above 64 channels."""

    def __init__(self, channels: int, f: int, norm_kind: str = "batch") -> None:
        """Take the channels in, the channels out and the kind of normalisation."""
        if f <= BOTTLENECK_ABOVE:
            super().__init__(ConvNormAct(channels, f, 3, norm_kind))
        else:
            super().__init__(
                ConvNormAct(channels, f, 1, norm_kind), ConvNormAct(f, f, 3, norm_kind)
            )


class Up(ConvNormAct):
    """``channels`` to more channels ``f``: 3x3, or 1x1 above 64 channels."""

    def __init__(self, channels: int, f: int, norm_kind: str = "batch") -> None:
        """Take the channels in, the channels out and the kind of normalisation."""
        super().__init__(channels, f, 3 if f <= BOTTLENECK_ABOVE else 1, norm_kind)


class Transpose(nn.Sequential):
    """Twice the size: a 4x4 transposed convolution of stride 2, in a bottleneck above 64."""

    def __init__(self, channels: int, f: int, norm_kind: str = "batch") -> None:
        """Take the channels in, the channels out and the kind of normalisation."""

        def doubled(channels: int, f: int) -> list[nn.Module]:
            return [
                nn.ConvTranspose2d(channels, f, 4, stride=2, padding=1),
                norm(norm_kind, f),
                nn.ReLU(inplace=True),
            ]

        if f <= BOTTLENECK_ABOVE:
            super().__init__(*doubled(channels, f))
        else:
            super().__init__(
                ConvNormAct(channels, f // 4, 1, norm_kind),
                *doubled(f // 4, f // 4),
                ConvNormAct(f // 4, f, 1, norm_kind),
            )


class UpStep(nn.Sequential):
    """Fig. 5a: d_i (N, C, H, W) to d~_{i-1} (N, f, 2H, 2W)."""

    def __init__(self, channels: int, f: int, norm_kind: str = "batch") -> None:
        """Take the channels in, the channels out and the kind of normalisation."""
        super().__init__(Transpose(channels, f, norm_kind), LightSmooth(f, f, norm_kind))


class Crush(nn.Module):
    """Fig. 5b: d_i (N, f, H, W) to mean and log-variance of z_i, each (N, 1, H, W).

    The SVAE applies one module in both directions: to the encoder's d_i for the bottom-up estimate,
    and to the decoder's d~_i for the prior p(z_i | z_{i+1}).
    """

    def __init__(self, f: int, norm_kind: str = "batch") -> None:
        """Take the channels ``f`` of d_i and the kind of normalisation."""
        super().__init__()
        half, quarter = f // 2, f // 4
        self.trunk = nn.Sequential(Down(f, half, norm_kind), LightSmooth(half, half, norm_kind))
        self.mean, self.log_variance = (
            nn.Sequential(
                Down(half, quarter, norm_kind),
                LightSmooth(quarter, quarter, norm_kind),
                nn.Conv2d(quarter, 1, 3, padding=1),
            )
            for _ in range(2)
        )

    def forward(self, d: Tensor, *, generating: bool) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance; ``generating`` is True for the decoder's d~."""
        set_role(self, generating=generating)
        trunk = self.trunk(d)
        return self.mean(trunk), self.log_variance(trunk)

    def start_at(self, deviation: float) -> None:
        """Start with means near 0 and standard deviations near ``deviation``."""
        for branch, bias in ((self.mean, 0.0), (self.log_variance, 2 * math.log(deviation))):
            last = branch[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            last.weight.data.mul_(START_SCALE)
            nn.init.constant_(last.bias, bias)


class Expand(nn.Sequential):
    """Fig. 5c: z_i (N, 1, H, W) to d_i (N, f, H, W)."""

    def __init__(self, f: int, norm_kind: str = "batch") -> None:
        """Take the channels ``f`` of d_i and the kind of normalisation."""
        super().__init__(
            Up(1, f // 4, norm_kind),
            LightSmooth(f // 4, f // 4, norm_kind),
            Up(f // 4, f // 2, norm_kind),
            LightSmooth(f // 2, f // 2, norm_kind),
            Smooth(f // 2, f, norm_kind),
        )


class Head(nn.Sequential):
    """Decoder features (N, C, H, W) to ``outputs`` maps of parameters (N, outputs, H, W)."""

    def __init__(self, channels: int, f: int, outputs: int, norm_kind: str = "batch") -> None:
        """Take the channels in, the hidden channels, the maps out and the kind of normalisation."""
        super().__init__(
            Down(channels, f, norm_kind),
            LightSmooth(f, f, norm_kind),
            nn.Conv2d(f, outputs, 7, padding=3),
        )

    def forward(self, features: Tensor, first: int | None = None) -> Tensor:
        """Map ``features`` to all maps, or only to the ``first`` ones, which takes less time."""
        down, smooth, last = self
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        hidden = smooth(down(features))
        return nn.functional.conv2d(hidden, last.weight[:first], last.bias[:first], padding=3)


def start_as_identity(network: nn.Module) -> None:
    """Set the last convolution of every :class:`ResBlock` to 0: the block starts as the identity.

    Networks of many blocks are then as deep at the start as without them, and their gradients are
    of the size of the loss (Goyal et al. 2017; Bachlechner et al., UAI 2021).
    """
    for block in network.modules():
        if isinstance(block, ResBlock):
            last = block.residual[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
