"""The four tissue labels, and rules from a mask's values to labels.

Every observation of a pixel's label is a *set* of allowed labels: one label where the pixel is
labelled, all four where it is not, ``{GGO, CONSOLIDATION}`` where a mask marks "infection" of
either kind.
"""

from collections.abc import Mapping

__all__ = [
    "ALL_LABELS",
    "BACKGROUND",
    "COLOURS",
    "CONSOLIDATION",
    "GGO",
    "HEALTHY",
    "LABELS",
    "LABEL_RULES",
    "LESIONS",
]

LABELS = ("background", "healthy", "ggo", "consolidation")
"""The tissue of a pixel, by the number of its label, 0 to 3."""

BACKGROUND, HEALTHY, GGO, CONSOLIDATION = range(4)

LESIONS = (GGO, CONSOLIDATION)
"""The labels of infected tissue."""

# Half transparent over any grey, the two differ from each other and from every grey by at least 17
# (CIEDE2000), with normal vision and with each of the three dichromacies.
COLOURS: Mapping[int, str] = {GGO: "#20E640", CONSOLIDATION: "#2050FF"}
"""The colours of the lesions; background and healthy lung keep their grey values."""

ALL_LABELS = 2 ** len(LABELS) - 1
"""The set of all labels, bit k for label k: the set of an unlabelled pixel."""

LABEL_RULES: Mapping[str, Mapping[int, frozenset[int]]] = {
    "full": {k: frozenset({k}) for k in range(4)},
    "infection": {
        0: frozenset({BACKGROUND}),
        1: frozenset({HEALTHY}),
        2: frozenset(LESIONS),
    },
    "lung": {0: frozenset({BACKGROUND}), 1: frozenset({HEALTHY, *LESIONS})},
    "control": {0: frozenset({BACKGROUND, HEALTHY})},
}
"""Named labelling rules: mask value -> the labels it allows."""
