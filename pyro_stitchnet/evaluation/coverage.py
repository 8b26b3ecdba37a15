"""How many slices a table of scores covers, and why the others are left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

__all__ = ["Coverage"]


@dataclass(frozen=True)
class Coverage:
    """The slices that are scored, out of those that were given.

    Attributes:
        scored: number of slices that are scored.
        of: number of slices given.
        left_out: reason -> number of the others.
    """

    scored: int
    of: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_slices(cls, manifest: pd.DataFrame, scored: pd.Series) -> "Coverage":
        """Count slices.

        Args:
            manifest: the rows of the slices given, see
                :data:`~pyro_stitchnet.data.datasets.shards.MANIFEST`.
            scored: whether each is scored.
        """
        unlabelled = ~manifest["labelled"] & ~scored
        reasons = {
            "without labels": unlabelled,
            "whose masks do not separate the labels": ~unlabelled & ~scored,
        }
        left_out = {reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()}
        return cls(int(scored.sum()), len(manifest), left_out)

    def __str__(self) -> str:
        """Describe the coverage in one line.

        Examples:
            >>> print(Coverage(50, 370, {"without labels": 320}))
            50 of 370 slices; left out: 320 without labels
        """
        others = ", ".join(f"{number} {reason}" for reason, number in self.left_out.items())
        return f"{self.scored} of {self.of} slices" + (f"; left out: {others}" if others else "")
