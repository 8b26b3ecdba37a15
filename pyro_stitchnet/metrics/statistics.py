"""Comparisons of two methods by their scores on the same patients."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

__all__ = ["holm", "interval", "paired"]

RESAMPLES = 10_000


def interval(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean over patients.

    Runs and patients are resampled independently (pigeonhole bootstrap; Owen, Annals of Applied
    Statistics 2007). So the interval contains the variance between trainings, if there are several.

    Args:
        values: one per patient, (P,), or of several runs, (R, P), with NaN for the patients that a
            run does not test. The mean is over patients, each averaged over its runs.
        level: confidence level.
        seed: of the resampling.

    Returns:
        The ends of the interval; NaN for fewer than two patients.
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    values = values[:, ~np.isnan(values).all(0)]
    if values.shape[1] < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    runs, patients = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in values.shape)
    known = runs @ ~np.isnan(values)  # runs of each patient, (RESAMPLES, P)
    means = runs @ np.nan_to_num(values) / np.maximum(known, 1)
    weights = patients * (known > 0)
    total = weights.sum(1)
    drawn = (weights * means).sum(1)[total > 0] / total[total > 0]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired(one: pd.Series | pd.DataFrame, other: pd.Series | pd.DataFrame) -> dict[str, float]:
    """Compare two methods over the runs and patients that both have a score for.

    Args:
        one: scores of one method, indexed by patient; or of several runs, one row each, with a
            column for each patient.
        other: scores of the other method, likewise.

    Returns:
        ``difference``, the mean of one - other over patients; ``low`` and ``high``, the ends of its
        95 % :func:`interval`; ``p`` of Wilcoxon's two-sided signed-rank test over patients (1 if
        all differences are 0); ``patients``, their number.
    """
    changes = one - other
    by_run = changes.to_frame().T if isinstance(changes, pd.Series) else changes
    by_run = by_run.dropna(axis=0, how="all").dropna(axis=1, how="all").sort_index(axis=1)
    differences = by_run.mean().to_numpy(dtype=float)
    low, high = interval(by_run.to_numpy(dtype=float))
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
