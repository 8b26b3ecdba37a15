"""The bottom-up half of the SVAE: MobileNetV2 on grey slices, with features d1..d5."""

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from pyro_stitchnet.model.nn.blocks import Down, Up
from pyro_stitchnet.model.nn.norm import BatchNorm2d
from pyro_stitchnet.runtime import torch_files
from pyro_stitchnet.runtime.checksums import sha256

__all__ = ["MobileNetPyramid", "load_imagenet_weights"]

# torchvision names a file of weights after the beginning of its SHA-256.
NAMED = re.compile(r"-([0-9a-f]{8,64})\.pth?$")

# Grey mean and standard deviation of ImageNet, the input that the published weights expect.
GREY_MEAN, GREY_STD = 0.449, 0.226

# Ends of the five parts, as (block of `features`, number of layers of that block's `conv`): the
# last activation at each resolution or, in the authors' program, an expansion inside a block. There
# the fourth part ends inside block 12, which therefore loses its identity connection.
PLAIN_ENDS = ((1, None), (3, None), (6, None), (13, None), (18, None))
CHAIN_ENDS = ((2, 1), (4, 1), (7, 1), (12, 1), (18, None))


class MobileNetPyramid(nn.Module):
    """MobileNetV2 on a one-channel slice, its activations projected to d1..d5 (Table 2).

    With ``wiring="projected"``, the article's, MobileNetV2 is unchanged and each of its activations
    at 1/2, 1/4, ... 1/32 of the size is projected. With ``wiring="in-chain"``, the authors'
    program, the next part takes the projected d_n, mapped back to MobileNetV2's width, so that
    every d_n is a bottleneck.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        *,
        wiring: str = "projected",
        weights: str | os.PathLike[str] | None = None,
        width: float = 1.0,
        norm_kind: str = "batch",
    ) -> None:
        """Build the pyramid.

        Args:
            channels: channels of d1..d5.
            wiring: "projected" or "in-chain".
            weights: None for random weights, "imagenet" for torchvision's (downloaded once), or the
                path of a state dict of ``mobilenet_v2().features``.
            width: torchvision's width multiplier; only 1.0 has published weights.
            norm_kind: normalisation of the projections, see
                :func:`~pyro_stitchnet.model.nn.norm.norm`.

        Raises:
            ValueError: ``wiring`` is unknown, or there are ``weights`` and ``width`` is not 1.
            FileNotFoundError: the weights are missing; the message has the remedy.
        """
        super().__init__()
        if wiring not in ("projected", "in-chain"):
            raise ValueError(f"wiring {wiring!r} is unknown; choose 'projected' or 'in-chain'")
        if len(channels) != 5:
            raise ValueError(f"channels must be the widths of d1..d5, got {tuple(channels)}")
        if weights is not None and width != 1.0:
            raise ValueError(
                f"{weights}: weights are for MobileNetV2 of width 1, not {width}; leave out "
                "--weights, or use the preset guided, article or reference"
            )
        features = mobilenet_v2(width_mult=width, norm_layer=BatchNorm2d).features
        if weights is not None:
            features.load_state_dict(load_imagenet_weights(weights))
        features[0][0] = _one_channel(features[0][0])
        in_chain = wiring == "in-chain"
        self.parts = nn.ModuleList(_cut(features, CHAIN_ENDS if in_chain else PLAIN_ENDS))
        widths = [_channels_out(part) for part in self.parts]
        self.projections = nn.ModuleList(
            Down(width, f, norm_kind) for width, f in zip(widths, channels, strict=True)
        )
        self.returns = nn.ModuleList(
            Up(f, width, norm_kind)
            for f, width in zip(channels[:-1], widths[:-1], strict=True)
            if in_chain
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map slices (N, 1, H, W) in [0, 1] to d1, ..., d5; d_n is (N, channels, H/2^n, W/2^n)."""
        h = (x - GREY_MEAN) / GREY_STD
        pyramid: list[Tensor] = []
        for level, (part, project) in enumerate(zip(self.parts, self.projections, strict=True)):
            if pyramid and self.returns:
                h = self.returns[level - 1](pyramid[-1])
            h = part(h)
            pyramid.append(project(h))
        return pyramid


def load_imagenet_weights(weights: str | os.PathLike[str]) -> Mapping[str, Tensor]:
    """Return the state dict of ``mobilenet_v2().features``.

    Args:
        weights: "imagenet" for torchvision's file, or the path of such a state dict.

    Raises:
        FileNotFoundError: the file is missing or could not be downloaded.
        ValueError: the file is damaged, or not a state dict of MobileNetV2's features.
    """
    if weights == "imagenet":
        published = MobileNet_V2_Weights.IMAGENET1K_V1
        try:
            state = published.get_state_dict(progress=True, check_hash=True)
        except OSError as error:  # URLError is one
            raise FileNotFoundError(
                f"the ImageNet weights could not be downloaded from {published.url} ({error}); "
                "fetch that file on a machine with a network and pass its path as `weights` "
                "(--weights PATH), or None for random weights"
            ) from error
        kept = Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
        if kept.is_file():  # torchvision verifies it when it is downloaded, and never again
            _verify_name(kept)
    else:
        path = Path(weights)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such weights file; pass 'imagenet' to download torchvision's, or the "
                "path of a state dict of MobileNetV2's features"
            )
        if NAMED.search(path.name):
            _verify_name(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            state = torch_files.read(path)
    # torchvision's file has the ImageNet classifier too.
    named = state if isinstance(state, Mapping) else {}
    features = {
        str(key).removeprefix("features."): value
        for key, value in named.items()
        if not str(key).startswith("classifier.")
    }
    expected = mobilenet_v2().features.state_dict()
    if features.keys() != expected.keys() or any(
        getattr(features[key], "shape", None) != expected[key].shape for key in expected
    ):
        raise ValueError(f"{weights}: not the weights of torchvision's mobilenet_v2().features")
    return features


def _verify_name(path: Path) -> None:
    """Check a published file of weights against the checksum in its name.

    Old files have no other checksum.

    Raises:
        ValueError: it is damaged.
    """
    named = NAMED.search(path.name)
    if named and not sha256(path).startswith(named[1]):
        raise ValueError(f"{path}: damaged (its checksum is not that in its name); fetch it again")


def _one_channel(stem: nn.Conv2d) -> nn.Conv2d:
    """Return the stem for grey slices: its weights summed over the colours.

    It computes what the colour stem computes for a grey slice repeated three times.
    """
    grey = nn.Conv2d(1, stem.out_channels, 3, stride=2, padding=1, bias=False)
    with torch.no_grad():
        grey.weight.copy_(stem.weight.sum(1, keepdim=True))
    return grey


def _cut(features: nn.Sequential, ends: Sequence[tuple[int, int | None]]) -> list[nn.Sequential]:
    """Divide MobileNetV2 into consecutive parts at ``ends``."""
    layers: list[nn.Module] = []
    after: list[int] = []
    for index, block in enumerate(features):
        inside = [length for end, length in ends if end == index]
        if inside and inside[0] is not None:  # a part ends inside this block
            inner = block.get_submodule("conv")
            assert isinstance(inner, nn.Sequential)
            layers += [inner[: inside[0]], inner[inside[0] :]]
            after.append(len(layers) - 1)
        else:
            layers.append(block)
            if inside:
                after.append(len(layers))
    return [nn.Sequential(*layers[a:b]) for a, b in itertools.pairwise([0, *after])]


def _channels_out(part: nn.Module) -> int:
    """Return the output channels of the last convolution of ``part``."""
    return [m.out_channels for m in part.modules() if isinstance(m, nn.Conv2d)][-1]
