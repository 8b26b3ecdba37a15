"""Uncertainty as a predictor of errors: ROC curves and selective segmentation."""

from collections.abc import Sequence

import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor

from pyro_stitchnet.labels import BACKGROUND, GGO

__all__ = ["auroc", "error_auroc", "selective"]

COVERAGES = (1.0, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5)


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Return the area under the ROC curve: P(a positive scores above a negative), ties half.

    Args:
        scores: any shape.
        positive: bool, same shape.

    Returns:
        A number in [0, 1]; NaN without positives or without negatives.
    """
    is_positive = positive.flatten().cpu()
    n, m = int(is_positive.sum()), int((~is_positive).sum())
    if not n or not m:
        return float("nan")
    ranks = torch.from_numpy(rankdata(scores.flatten().cpu().double().numpy()))
    return float((ranks[is_positive].sum() - n * (n + 1) / 2) / (n * m))


def error_auroc(uncertainty: Tensor, predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Return how well uncertainty separates wrong pixels from right ones, as an ROC area.

    Args:
        uncertainty: (N, H, W); larger is less certain.
        predicted: label maps (N, H, W).
        truth: label maps (N, H, W).

    Returns:
        ``all``, over all pixels, and ``lung``, over those whose true or predicted label is lung.
    """
    wrong = predicted != truth
    lung = (truth != BACKGROUND) | (predicted != BACKGROUND)
    return {"all": auroc(uncertainty, wrong), "lung": auroc(uncertainty[lung], wrong[lung])}


def selective(
    uncertainty: Tensor, predicted: Tensor, truth: Tensor, coverages: Sequence[float] = COVERAGES
) -> pd.DataFrame:
    """Return Dice of the infection over the most certain pixels of the lung, by coverage.

    Args:
        uncertainty: (N, H, W); larger is less certain.
        predicted: label maps (N, H, W).
        truth: label maps (N, H, W).
        coverages: shares of the lung's pixels (true or predicted) to keep.

    Returns:
        One row per coverage: ``coverage``, ``dice`` (both lesions together, pooled over pixels) and
        ``errors`` (the share of the kept pixels whose label is wrong).

    Raises:
        ValueError: no pixel is lung, or a coverage is not in (0, 1].
    """
    lung = (truth != BACKGROUND) | (predicted != BACKGROUND)
    if not lung.any():
        raise ValueError("no pixel is lung; give slices that show lung")
    if not all(0 < share <= 1 for share in coverages):
        raise ValueError(f"coverages must lie in (0, 1], got {list(coverages)}")
    order = uncertainty[lung].argsort(stable=True)
    p, t = predicted[lung][order], truth[lung][order]
    rows = []
    for share in coverages:
        kept = slice(0, max(1, round(share * len(p))))
        predicted_infection, infection = p[kept] >= GGO, t[kept] >= GGO
        overlap = 2 * float((predicted_infection & infection).sum())
        total = float(predicted_infection.sum() + infection.sum())
        rows.append(
            {
                "coverage": share,
                "dice": overlap / total if total else float("nan"),
                "errors": float((p[kept] != t[kept]).float().mean()),
            }
        )
    return pd.DataFrame(rows)
