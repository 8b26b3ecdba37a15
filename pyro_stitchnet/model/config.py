"""The networks of a model, as plain numbers and names."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from pyro_stitchnet.runtime.ranges import NO_BOOL, check_ranges

__all__ = ["Likelihood", "ModelConfig", "Wiring"]

Likelihood = Literal["beta", "floored-beta", "bounded-beta", "discretised-logistic"]
"""Distribution of a pixel's grey value under one style."""

Wiring = Literal["projected", "in-chain"]
"""How the features are taken from MobileNetV2."""

Width = Annotated[int, NO_BOOL, Field(ge=1, le=2048)]
"""Channels of a layer: two of 4096 have more weights than memory has room for."""

Channels = Annotated[tuple[Width, ...], Field(min_length=5, max_length=5)]
"""Channels of five levels."""

Multiplier = Annotated[float, NO_BOOL, Field(gt=0, le=4)]
Pool = Annotated[int, NO_BOOL, Field(ge=1, le=64)]
Deviation = Annotated[float, NO_BOOL, Field(ge=0.01, le=10)]


@dataclass(frozen=True)
class ModelConfig:
    """The networks of a model.

    Attributes:
        stitched: StitchNet, with labels and one style per label; False is the SVAE alone, with one
            style and no labels.
        channels: channels of d1..d5 (Table 2).
        decoder_channels: channels of the decoder's features, from which the heads read.
        head_channels: channels inside each head.
        shared_heads: one head for all maps of parameters, where the article has one per map.
        shared_crush: one mapping d -> z for the encoder and the decoder (the SVAE); False gives
            each its own (the ladder VAE, Sonderby et al. 2016).
        wiring: "projected" projects MobileNetV2's activations (the article); "in-chain" puts
            bottlenecks into MobileNetV2 (the authors' program).
        weights: initial weights of MobileNetV2: None (random), "imagenet" or a path.
        width: width multiplier of MobileNetV2.
        downsampling: average-pool size before the encoder; the decoder's maps are enlarged by the
            same factor. Slice sides must be multiples of 32 times it.
        norm: normalisation outside MobileNetV2, which keeps its batch norm: "batch" (the article)
            or "group".
        identity_start: whether every residual block starts as the identity. With random weights the
            chain from z5 to z1 is some 150 convolutions deep, and its gradients explode.
        start_deviation: standard deviation near which every z_n starts, so that the chain passes a
            signal on; None leaves it to the random weights, near 1.
        likelihood: distribution of a pixel under one style.
        style_pool: average-pool size of the features that the styles are computed from, in pixels
            of the slice; 1 does not pool. A style cannot show finer detail than this.
        classifier: whether the guide has q(y | x), a U-Net over a MobileNetV2 of its own.
        anchored: whether the styles start at the grey values of their labels in the labelled
            slices; see `StitchNet.anchor`.
        checkpointing: whether the activations of the heads and of the networks from z5 down to them
            are computed again in the backward pass. It saves memory and takes time; the results
            are the same.
    """

    stitched: bool = True
    channels: Channels = (32, 64, 128, 256, 512)
    decoder_channels: Width = 16
    head_channels: Width = 8
    shared_heads: bool = False
    shared_crush: bool = True
    wiring: Wiring = "projected"
    weights: str | None = None
    width: Multiplier = 1.0
    downsampling: Pool = 1
    norm: Literal["batch", "group"] = "batch"
    identity_start: bool = False
    start_deviation: Deviation | None = None
    likelihood: Likelihood = "beta"
    style_pool: Pool = 1
    classifier: bool = False
    anchored: bool = False
    checkpointing: bool = False

    def __post_init__(self) -> None:
        """Check the ranges, and refuse options of labels in a model without labels."""
        check_ranges(self)
        pool, downsampling = self.style_pool, self.downsampling
        if pool != 1 and (pool <= downsampling or pool % downsampling):
            raise ValueError(
                f"style_pool must be 1, or a multiple of downsampling above it ({downsampling}), "
                f"got {pool}"
            )
        if not self.stitched and (self.classifier or self.anchored or self.style_pool != 1):
            raise ValueError(
                "classifier, anchored and style_pool need labels; set stitched, or leave them out"
            )
