"""How labels are read out of a model: the options shared by every command and function."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from pyro_stitchnet.runtime.precision import Precision
from pyro_stitchnet.runtime.ranges import Few, FewOrZero, Seed, Weight, check_ranges

__all__ = ["VIEWS", "Decision", "ReadOut", "ReadOutOptions", "check_decision"]

ReadOut = Literal["guide", "prior", "posterior"]
"""The source of label probabilities: q(y | x), p(y | z) or p(y | x, z)."""

Decision = Literal["likeliest", "dice"]
"""The likeliest label of each pixel, or the infection of greatest expected Dice."""

VIEWS = 8
"""Flips and quarter turns of a square."""


@dataclass(frozen=True)
class ReadOutOptions:
    """Options of a segmentation.

    Attributes:
        read_out: "guide" is the classifier's q(y | x), "prior" is p(y | z), "posterior" is
            p(y | x, z) by Bayes' rule: through the styles or, in a model with a classifier, through
            the tissue levels.
        samples: draws of z to average over; 0 uses the mean of each level.
        views: flips and quarter turns of each slice to average over, 1 to 8.
        batch_size: slices per forward pass.
        precision: of the networks when labels are read; "auto" is bf16-mixed where the device
            computes in bf16, else 32.
        decision: how probabilities become labels: "likeliest" takes each pixel's likeliest label,
            "dice" the infection of greatest expected Dice.
        least_patch: smallest patch of consolidation, in pixels of the model's input; smaller ones
            become GGO.
        seed: of the draws of z.
    """

    read_out: ReadOut = "posterior"
    samples: FewOrZero = 1
    views: Annotated[int, Field(ge=1, le=VIEWS)] = 1
    batch_size: Few = 8
    precision: Precision = "32"
    decision: Decision = "likeliest"
    least_patch: Weight = 0
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.read_out not in get_args(ReadOut):
            raise ValueError(
                f"read_out {self.read_out!r} is unknown; choose one of {get_args(ReadOut)}"
            )
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision {self.precision!r} is unknown; choose one of {get_args(Precision)}"
            )
        check_ranges(self)
        check_decision(self.decision, self.least_patch)


def check_decision(decision: str, least_patch: float = 0) -> None:
    """Check the options of a decision, see :mod:`~pyro_stitchnet.posterior.decision`.

    Raises:
        ValueError: the decision is unknown, or ``least_patch`` is below 0 or not finite.
    """
    if decision not in get_args(Decision):
        raise ValueError(f"decision {decision!r} is unknown; choose one of {get_args(Decision)}")
    if not 0 <= least_patch < math.inf:
        raise ValueError(f"least_patch must be a number of pixels, at least 0, got {least_patch}")
