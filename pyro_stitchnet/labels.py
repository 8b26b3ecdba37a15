"""The four tissue labels, and what a mask's values say about them.

Every observation of a pixel's label is a *set* of allowed labels: one label where the pixel is
labelled, all four where it is not, ``{GGO, CONSOLIDATION}`` where a dataset only says "infection".
"""

from collections.abc import Mapping

__all__ = [
    "ALL_LABELS",
    "BACKGROUND",
    "CONSOLIDATION",
    "GGO",
    "HEALTHY",
    "LABELS",
    "LABEL_RULES",
]

LABELS = ("background", "healthy", "ggo", "consolidation")
"""The tissue of a pixel, by the number of its label, 0 to 3."""

BACKGROUND, HEALTHY, GGO, CONSOLIDATION = range(4)

ALL_LABELS = 2 ** len(LABELS) - 1
"""The set of all labels, bit k for label k: what is known of an unlabelled pixel."""

LABEL_RULES: Mapping[str, Mapping[int, frozenset[int]]] = {
    "full": {k: frozenset({k}) for k in range(4)},
    "infection": {
        0: frozenset({BACKGROUND}),
        1: frozenset({HEALTHY}),
        2: frozenset({GGO, CONSOLIDATION}),
    },
    "lung": {0: frozenset({BACKGROUND}), 1: frozenset({HEALTHY, GGO, CONSOLIDATION})},
    "control": {0: frozenset({BACKGROUND, HEALTHY})},
}
"""Named labelling rules: mask value -> the labels it allows."""
