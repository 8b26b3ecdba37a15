"""Whether doubt is where the errors are: its ROC, and what is gained by leaving doubt undecided."""

from collections.abc import Sequence

import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor

from pyro_stitchnet.labels import BACKGROUND, GGO

__all__ = ["auroc", "error_auroc", "selective"]

COVERAGES = (1.0, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5)


def auroc(scores: Tensor, positive: Tensor) -> float:
    """The probability that a positive scores higher than a negative, ties counting half.

    Args:
        scores: of any shape.
        positive: bool, of the same shape.

    Returns:
        The area under the receiver operating characteristic; NaN where one of the two kinds is
        missing.
    """
    hits = positive.flatten().cpu()
    n, m = int(hits.sum()), int((~hits).sum())
    if not n or not m:
        return float("nan")
    ranks = torch.from_numpy(rankdata(scores.flatten().cpu().double().numpy()))
    return float((ranks[hits].sum() - n * (n + 1) / 2) / (n * m))


def error_auroc(doubt: Tensor, predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Whether wrong pixels are doubted more than right ones.

    Args:
        doubt: (N, H, W), the larger the less sure.
        predicted: label maps (N, H, W).
        truth: label maps (N, H, W).

    Returns:
        ``all``, over every pixel, and ``lung``, over those whose truth or prediction is lung.
    """
    wrong = predicted != truth
    lung = (truth != BACKGROUND) | (predicted != BACKGROUND)
    return {"all": auroc(doubt, wrong), "lung": auroc(doubt[lung], wrong[lung])}


def selective(
    doubt: Tensor, predicted: Tensor, truth: Tensor, coverages: Sequence[float] = COVERAGES
) -> pd.DataFrame:
    """Dice of the infection over the pixels of the lung that are decided, the surest first.

    Args:
        doubt: (N, H, W), the larger the less sure.
        predicted: label maps (N, H, W).
        truth: label maps (N, H, W).
        coverages: shares of the lung's pixels (of truth or prediction) to decide.

    Returns:
        A row a coverage: ``coverage``, ``dice`` (either lesion, pooled over pixels) and ``errors``
        (the share of the decided pixels whose label is wrong).

    Raises:
        ValueError: no pixel is lung, or a coverage is not in (0, 1].
    """
    lung = (truth != BACKGROUND) | (predicted != BACKGROUND)
    if not lung.any():
        raise ValueError("no pixel is lung: there is nothing to decide")
    if not all(0 < share <= 1 for share in coverages):
        raise ValueError(f"coverages must lie in (0, 1], got {list(coverages)}")
    order = doubt[lung].argsort(stable=True)
    p, t = predicted[lung][order], truth[lung][order]
    rows = []
    for share in coverages:
        kept = slice(0, max(1, round(share * len(p))))
        ours, theirs = p[kept] >= GGO, t[kept] >= GGO
        both = 2 * float((ours & theirs).sum())
        sizes = float(ours.sum() + theirs.sum())
        rows.append(
            {
                "coverage": share,
                "dice": both / sizes if sizes else float("nan"),
                "errors": float((p[kept] != t[kept]).float().mean()),
            }
        )
    return pd.DataFrame(rows)
