"""Named configurations: a model, its objective and its optimiser."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.label_terms import Enumerated, Expected, Guided, Marginal, Unlabelled
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.runtime.ranges import CountOrZero, Decay, Positive, Weight, check_ranges

__all__ = ["DEFAULT", "PRESETS", "OptimiserConfig", "Preset", "preset"]

DEFAULT = "guided"
"""The preset of a run that names none."""


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, its clipping and schedule, and the average of the weights.

    Attributes:
        learning_rate: of Adam.
        warmup: steps over which the learning rate rises linearly from near 0.
        decay: of the learning rate afterwards: "constant", or "cosine", down to 0 at the last step.
        ema: decay of the moving average of the weights that is validated and kept; 0 keeps the
            weights themselves.
        clip_norm: largest norm of one tensor's gradient (of the loss in nats per pixel).
        clip_value: largest absolute value of one entry, before the norm; None leaves it out.
    """

    learning_rate: Weight = 3e-4
    warmup: CountOrZero = 0
    decay: Literal["constant", "cosine"] = "constant"
    ema: Decay = 0.0
    clip_norm: Positive = 1.0
    clip_value: Positive | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)

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


# Small enough for tests, teaching and the demo; the numbers are the project's own, from phantoms.
_TINY = Preset(
    ModelConfig(
        channels=(16, 24, 32, 48, 64),
        head_channels=16,
        shared_heads=True,
        width=0.35,
        norm="group",
        likelihood="bounded-beta",
    ),
    Objective(Marginal(label_weight=50), kl_warmup=200, free_bits=0.01),
    OptimiserConfig(learning_rate=5e-3),
)

# The SVAE without y. Grey levels have masses, so the bound is in bits per dimension.
_SVAE = Preset(
    ModelConfig(stitched=False, likelihood="discretised-logistic"),
    Objective(Unlabelled(), kl_warmup=200),
    OptimiserConfig(learning_rate=1e-3, warmup=100, decay="cosine", ema=0.99),
)

PRESETS: Mapping[str, Preset] = {
    # The project's own: the guide's q(y | x) learns labels as a U-Net does, and the slice's tissue
    # levels separate GGO from consolidation; the styles are too coarse to show a slice. Unlabelled
    # slices teach z and the styles, and with consistency_weight q(y | x) too (docs/study.md).
    "guided": Preset(
        replace(
            _TINY.model,
            downsampling=2,
            style_pool=16,
            classifier=True,
            anchored=True,
        ),
        Objective(Guided(guide_weight=0, bound_every=2), kl_warmup=200, free_bits=0.01),
        OptimiserConfig(learning_rate=2e-3, warmup=50, decay="cosine", ema=0.99),
    ),
    # The article: Table 2, plain projections, Beta styles, eq. 9. The start, the weight of labels,
    # the warm-up of the KL and the optimiser are the project's own: docs/model.md says why.
    "article": Preset(
        ModelConfig(identity_start=True, start_deviation=0.135),
        Objective(Enumerated(label_weight=50), kl_warmup=400),
        OptimiserConfig(learning_rate=2e-3, warmup=50, decay="cosine", ema=0.98),
    ),
    # The authors' own program (TensorFlow, 2022), to reproduce its failure.
    "reference": Preset(
        ModelConfig(wiring="in-chain", likelihood="floored-beta"),
        Objective(Expected()),
        OptimiserConfig(clip_value=0.5),
    ),
    "svae": _SVAE,
    # The ladder VAE (Sonderby et al. 2016): the same with a mapping d -> z per direction.
    "lvae": replace(_SVAE, model=replace(_SVAE.model, shared_crush=False)),
    "tiny": _TINY,
    "tiny-logistic": replace(_TINY, model=replace(_TINY.model, likelihood="discretised-logistic")),
}
"""The configurations by name."""


def preset(name: str) -> Preset:
    """Return the preset ``name``.

    Raises:
        ValueError: there is none of that name; the message lists the names.

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
