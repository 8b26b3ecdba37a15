"""Comparisons of two methods by their scores on the same patients."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

__all__ = ["holm", "interval", "paired"]

RESAMPLES = 10_000


def interval(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean.

    Args:
        values: one per patient.
        level: confidence level.
        seed: of the resampling.

    Returns:
        The ends of the interval; NaN for fewer than two values.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    ends = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(ends.low), float(ends.high)


def paired(one: pd.Series, other: pd.Series) -> dict[str, float]:
    """Compare two methods over the patients that both have a score for.

    Args:
        one: scores of one method, indexed by patient.
        other: scores of the other method, indexed by patient.

    Returns:
        ``difference``, the mean of one - other; ``low`` and ``high``, the ends of its 95 %
        bootstrap interval; ``p`` of Wilcoxon's two-sided signed-rank test (1 if all differences are
        0); ``patients``, their number.
    """
    both = pd.concat([one, other], axis=1, keys=["one", "other"]).dropna()
    differences = (both["one"] - both["other"]).to_numpy(dtype=float)
    low, high = interval(differences)
    any_difference = bool(np.any(differences))
    return {
        "difference": float(differences.mean()) if len(differences) else float("nan"),
        "low": low,
        "high": high,
        "p": float(stats.wilcoxon(differences).pvalue) if any_difference else 1.0,
        "patients": len(differences),
    }


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's correction (1979) of p-values, by the names of the comparisons."""
    adjusted, floor = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        floor = max(floor, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = floor
    return adjusted
