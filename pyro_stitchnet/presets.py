"""Named configurations, as data: nothing here but numbers and names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

__all__ = [
    "PRESETS",
    "LabelTerm",
    "Likelihood",
    "ModelConfig",
    "Objective",
    "OptimiserConfig",
    "Preset",
    "Wiring",
    "preset",
]

Wiring = Literal["projected", "in-chain"]
"""How MobileNetV2 is tapped."""

Likelihood = Literal["beta", "floored-beta", "bounded-beta", "discretised-logistic"]
"""Families of a pixel under one style."""

LabelTerm = Literal["enumerated", "marginal", "relaxed", "expected", "guided"]
"""How the label of a pixel enters the bound."""


@dataclass(frozen=True)
class ModelConfig:
    """The networks of StitchNet.

    Attributes:
        channels: channels of d1..d5 (Table 2).
        decoder_channels: channels at full size, from which the heads read.
        head_channels: channels inside each head.
        shared_heads: one head for all nine maps of parameters, where the article has one each.
        wiring: how MobileNetV2 is tapped: its activations "projected" (the article), or bottlenecks
            "in-chain" (the authors' program).
        weights: MobileNetV2's start: None, "imagenet" or a path.
        width: MobileNetV2's width multiplier.
        shrink: pixels a side of the slice that make one of what the ladder of z sees and draws; its
            answers are drawn smooth at the slice's size. Sides must be multiples of 32 times it.
        norm: normalisation of all but MobileNetV2 (which keeps its batch norm), "batch" (the
            article) or "group".
        likelihood: family of a pixel under one style.
        style_grain: pixels a side of the blocks over which the features that styles are made of are
            averaged, so that no style can draw more of a slice than that; 1 leaves them as they
            are.
        segmenter: whether the guide has q(y | x), a U-Net over a MobileNetV2 of its own.
        anchored: whether training begins with styles of each label's own grey values in the
            annotated slices, not with random ones; see `StitchNet.anchor`.
        tempering: exponent of p(x | y, z) beside q(y | x) where the posterior tells one lesion from
            the other.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    decoder_channels: int = 16
    head_channels: int = 8
    shared_heads: bool = False
    wiring: Wiring = "projected"
    weights: str | None = None
    width: float = 1.0
    shrink: int = 1
    norm: Literal["batch", "group"] = "batch"
    likelihood: Likelihood = "beta"
    style_grain: int = 1
    segmenter: bool = False
    anchored: bool = False
    tempering: float = 1.0


@dataclass(frozen=True)
class Objective:
    """The terms of the bound.

    Attributes:
        labels: how the label y of each pixel enters. "enumerated": a Pyro site summed out by
            TraceEnum_ELBO. "marginal": the same number in closed form. "relaxed": a
            Gumbel-softmax sample, also drawn by the guide: a bound of the relaxed model's evidence,
            whose KL is that of the relaxed labels, larger than that of the labels.
            "expected": the reference code's SUM_k pi_k log p_k(x) on every pixel, with a focal
            loss on labels beside it. "guided": summed out under the
            guide's q(y | x, z, y in A), Bayes' rule on q(y | x) and the styles; q(y | x) learns
            labels by ``label_weight`` beside it (M2, Kingma et al. 2014); needs a segmenter.
        label_weight: factor on log p(y in A | z), 1 in eq. 9; where "guided", on log q(y in A | x),
            M2's alpha. Grey values outweigh labels by far, so labels alone are learnt slowly.
        dice_weight: factor on the soft Dice loss of q(y | x) beside it; "guided" only.
        guide_weight: factor on the gradient by which the bound teaches q(y | x); "guided" only. 1
            is the bound's own, 0 lets labels alone teach it.
        posterior_weight: factor on the squared difference by which the posterior of y teaches
            q(y | x) where labels leave it open, see `pyro_stitchnet.training.self_training`;
            "guided" only.
        posterior_warmup: steps over which that factor rises from near 0.
        kl_weight: factor on the z sites of model and guide (1 is the ELBO).
        kl_warmup: steps over which training raises the KL weight linearly from near 0.
        free_bits: nats per pixel of a latent map that each level may use at no cost: the bound
            has max(KL, free_bits) in place of a level's KL (Kingma et al. 2016).
        temperature: of the relaxed y.
        focal_weight: the reference code's factor on the focal loss; "expected" only.
        focal_gamma: exponent of the focal loss.
    """

    labels: LabelTerm = "enumerated"
    label_weight: float = 1.0
    dice_weight: float = 1.0
    guide_weight: float = 1.0
    posterior_weight: float = 0.0
    posterior_warmup: int = 0
    kl_weight: float = 1.0
    kl_warmup: int = 0
    free_bits: float = 0.0
    temperature: float = 0.5
    focal_weight: float = 100.0
    focal_gamma: float = 2.0

    def __post_init__(self) -> None:
        """Refuse weights outside their range."""
        if self.labels not in get_args(LabelTerm):
            raise ValueError(f"labels={self.labels!r} is not one of {get_args(LabelTerm)}")
        if self.kl_weight <= 0:
            # poutine.scale refuses 0; a warm-up starts at 1e-6.
            raise ValueError(f"kl_weight must be above 0, got {self.kl_weight}")
        rest = (self.free_bits, self.kl_warmup, self.posterior_weight, self.posterior_warmup)
        if self.temperature <= 0 or min(rest) < 0:
            raise ValueError(
                "temperature must be above 0; free_bits, kl_warmup, posterior_weight and "
                "posterior_warmup at least 0"
            )


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, its clipping and schedule, and the average of the weights.

    Attributes:
        learning_rate: Adam's.
        warmup: steps over which the learning rate rises linearly from near 0.
        decay: what it does then: stay "constant", or fall to 0 at the last step along a "cosine".
        ema: decay of the moving average of the weights that is validated and kept in their place;
            0 takes the weights themselves.
        clip_norm: largest norm of one tensor's gradient (of the loss in nats per pixel).
        clip_value: largest absolute value of one entry, before the norm; None leaves it out.
    """

    learning_rate: float = 3e-4
    warmup: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    ema: float = 0.0
    clip_norm: float = 1.0
    clip_value: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers outside their range."""
        if self.warmup < 0 or not 0 <= self.ema < 1:
            raise ValueError(
                f"warmup must be at least 0 and ema in [0, 1), got {self.warmup} and {self.ema}"
            )

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step (from 1) of ``steps``.

        Examples:
            >>> cosine = OptimiserConfig(learning_rate=1.0, warmup=2, decay="cosine")
            >>> [round(cosine.rate(step, 6), 2) for step in range(1, 7)]
            [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
        """
        if step <= self.warmup:
            return self.learning_rate * step / self.warmup
        if self.decay == "constant":
            return self.learning_rate
        done = (step - self.warmup - 1) / (steps - self.warmup)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Preset:
    """A model, what it maximises, and how."""

    model: ModelConfig = field(default_factory=ModelConfig)
    objective: Objective = field(default_factory=Objective)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)


# Small enough for tests, teaching and the demo. The numbers are the project's own, tried on
# phantoms.
_TINY = Preset(
    ModelConfig(
        channels=(16, 24, 32, 48, 64),
        head_channels=16,
        shared_heads=True,
        width=0.35,
        norm="group",
        likelihood="bounded-beta",
    ),
    Objective(labels="marginal", label_weight=50, kl_warmup=200, free_bits=0.01),
    OptimiserConfig(learning_rate=5e-3),
)

PRESETS: Mapping[str, Preset] = {
    # The article: Table 2, plain projections, Beta styles, eq. 9. docs/model.md says what it leaves
    # open and what is done there.
    "article": Preset(),
    # What the authors' own program does (TensorFlow, 2022), so that its failure can be reproduced.
    "reference": Preset(
        ModelConfig(wiring="in-chain", likelihood="floored-beta"),
        Objective(labels="expected"),
        OptimiserConfig(clip_value=0.5),
    ),
    # The project's own: the guide's q(y | x) learns labels as a U-Net does; the styles, too coarse
    # to draw a slice, say how bright each tissue is there, and so tell the lesions apart.
    "guided": Preset(
        replace(
            _TINY.model,
            shrink=2,
            style_grain=16,
            segmenter=True,
            anchored=True,
            tempering=4.0,
        ),
        Objective(
            labels="guided",
            kl_warmup=200,
            free_bits=0.01,
            guide_weight=0,
            posterior_weight=0.05,
            posterior_warmup=200,
        ),
        OptimiserConfig(learning_rate=2e-3, warmup=50, decay="cosine", ema=0.99),
    ),
    "tiny": _TINY,
    "tiny-logistic": replace(_TINY, model=replace(_TINY.model, likelihood="discretised-logistic")),
}
"""The configurations by name."""


def preset(name: str) -> Preset:
    """Return the preset ``name``.

    Raises:
        ValueError: there is none of that name; the message lists those there are.

    Examples:
        >>> preset("article").model.channels
        (32, 64, 128, 256, 512)
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise ValueError(
            f"preset {name!r} is unknown; choose one of {', '.join(PRESETS)}"
        ) from None
