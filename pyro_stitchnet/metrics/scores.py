"""Overlap of predicted and true segmentations, slice by slice (eq. 1 of the article)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY, LABELS, LESIONS

__all__ = [
    "ARTICLE_GROUPS",
    "GROUPS",
    "INFECTION",
    "LESION_GROUPS",
    "SCORES",
    "slice_scores",
]

ARTICLE_GROUPS: Mapping[str, tuple[int, ...]] = {
    "GGO": (GGO,),
    "CON": (CONSOLIDATION,),
    "Background": (BACKGROUND, HEALTHY),
}
"""The article's three groups of labels, in its order."""

LESION_GROUPS = ("GGO", "CON")
"""The names of the groups of a single lesion."""

INFECTION = "Infection"
"""The name of the group of both lesions."""

GROUPS = {**ARTICLE_GROUPS, INFECTION: LESIONS}
"""The groups of labels that are scored: the article's three, and both lesions together."""

SCORES = ("iou", "f1", "recall", "precision")
"""The four ratios of eq. 1, as columns of `slice_scores`."""


def slice_scores(
    truth: ArrayLike,
    predicted: ArrayLike,
    names: Sequence[str] | None = None,
    patients: Sequence[str] | None = None,
    groups: Sequence[str] = tuple(GROUPS),
) -> pd.DataFrame:
    r"""Score every slice for GGO, consolidation (CON), Background (or healthy), and Infection.

    With T the true and P the predicted pixels of a group in a slice (Zammit et al. 2022, eq. 1)::

        IoU = |T ∩ P| / |T ∪ P|          F1 (= Dice) = 2 |T ∩ P| / (|T| + |P|)
        Recall = |T ∩ P| / |T|           Precision = |T ∩ P| / |P|

    **Empty masks.** The article does not define the scores of a slice whose T or P is empty. Here a
    ratio 0/0 is NaN and left out of every mean; `pyro_stitchnet.evaluation.tables` counts the
    slices with a defined score.

    ===================================  =============  =========  =========
    slice                                IoU and F1     recall     precision
    ===================================  =============  =========  =========
    T empty, P empty (true negative)    undefined      undefined  undefined
    T empty, P not (false alarm)         0              undefined  0
    P empty, T not (missed lesion)       0              0          undefined
    ===================================  =============  =========  =========

    Args:
        truth: Integer labels 0 to 3 of shape (N, H, W).
        predicted: The same, of the same shape. Tensors must be on the CPU.
        names: One name per slice. By default "0", "1", ...
        patients: One patient per slice. By default unknown (missing in the result).
        groups: Which of `GROUPS` to score. If the truth marks infection without separating GGO
            from consolidation, only `INFECTION` can be scored.

    Returns:
        One row per slice and group, slice by slice, with the columns ``name``, ``patient``,
        ``lesion`` (one of ``groups``), ``iou``, ``f1``, ``recall``, ``precision``,
        ``truth_pixels`` = \|T\|, ``predicted_pixels`` = \|P\| and ``common_pixels`` = \|T ∩ P\|.

    Raises:
        ValueError: If the shapes differ or are not (N, H, W), if a label is outside 0 to 3, or if
            the numbers of names and patients are not that of the slices.
        TypeError: If the labels are not integers.

    Examples:
        >>> scores = slice_scores([[[0, 1], [2, 2]]], [[[0, 1], [2, 1]]])
        >>> scores[["lesion", "f1", "recall"]].round(2).values.tolist()
        [['GGO', 0.67, 0.5], ['CON', nan, nan], ['Background', 0.8, 1.0], ['Infection', 0.67, 0.5]]
    """
    true_labels, predicted_labels = _labels(truth, "truth"), _labels(predicted, "predicted")
    if true_labels.shape != predicted_labels.shape:
        raise ValueError(
            f"truth has shape {true_labels.shape} and predicted {predicted_labels.shape}; "
            "bring both to the same slices and the same grid"
        )
    slices = len(true_labels)
    if names is None:
        names = [str(n) for n in range(slices)]
    for what, values in (("names", names), ("patients", patients)):
        if values is not None and len(values) != slices:
            raise ValueError(f"{slices} slices but {len(values)} {what}; give one per slice")

    tables = []
    for lesion in groups:
        t, p = (np.isin(labels, GROUPS[lesion]) for labels in (true_labels, predicted_labels))
        t_pixels, p_pixels, common = (np.count_nonzero(m, axis=(1, 2)) for m in (t, p, t & p))
        tables.append(
            pd.DataFrame(
                {
                    "name": list(names),
                    "patient": [None] * slices if patients is None else list(patients),
                    "lesion": lesion,
                    "iou": _ratio(common, t_pixels + p_pixels - common),
                    "f1": _ratio(2 * common, t_pixels + p_pixels),
                    "recall": _ratio(common, t_pixels),
                    "precision": _ratio(common, p_pixels),
                    "truth_pixels": t_pixels,
                    "predicted_pixels": p_pixels,
                    "common_pixels": common,
                }
            )
        )
    # A stable sort by position groups the rows of a slice, in the order of the groups.
    return pd.concat(tables).sort_index(kind="stable").reset_index(drop=True)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    undefined = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _labels(values: ArrayLike, what: str) -> NDArray[np.integer]:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(
            f"{what} has dtype {array.dtype}; give integer labels "
            "(the argmax of probabilities, not the probabilities)"
        )
    if array.ndim != 3:
        raise ValueError(f"{what} has shape {array.shape}; give (slices, rows, columns)")
    if array.size and not (array.min() >= 0 and array.max() < len(LABELS)):
        raise ValueError(
            f"{what} has labels from {array.min()} to {array.max()}; they must be 0 to "
            f"{len(LABELS) - 1}: {', '.join(LABELS)}. Leave unlabelled slices out"
        )
    return array
