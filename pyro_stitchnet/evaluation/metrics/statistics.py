"""Whether two methods differ, by what they score on the same patients."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

__all__ = ["holm", "interval", "paired"]

RESAMPLES = 10_000


def interval(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The bootstrap's percentile interval of a mean.

    Args:
        values: one a patient.
        level: of confidence.
        seed: of the resampling.

    Returns:
        Its ends; NaN for fewer than two values.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    found = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def paired(one: pd.Series, other: pd.Series) -> dict[str, float]:
    """The difference of two methods over the patients that both were scored on.

    Args:
        one: a score, its index the patients.
        other: the other method's.

    Returns:
        ``difference``, the mean of one - other; ``low`` and ``high``, the ends of its 95 %
        bootstrap interval; ``p``, Wilcoxon's signed-rank test, two-sided (1 if no patient differs);
        ``patients``.
    """
    both = pd.concat([one, other], axis=1, keys=["one", "other"]).dropna()
    differences = (both["one"] - both["other"]).to_numpy(dtype=float)
    low, high = interval(differences)
    some = bool(len(differences)) and bool(np.any(differences))
    return {
        "difference": float(differences.mean()) if len(differences) else float("nan"),
        "low": low,
        "high": high,
        "p": float(stats.wilcoxon(differences).pvalue) if some else 1.0,
        "patients": len(differences),
    }


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction (1979) of the p-values of several comparisons, by name."""
    adjusted, floor = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.__getitem__)):
        floor = max(floor, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = floor
    return adjusted
