"""Warnings: signs in a run's log that a model is not learning as it should."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.svae import LEVELS

__all__ = ["health_warnings"]

ROWS = 10  # of the log, averaged: a single batch is too noisy
ACTIVE_FLOOR = 0.01  # share of a level's entries that depend on the slice
MODE_GAP = 0.2  # of the loss, in nats per pixel for a bound
GAP_FLOOR = 0.01  # of the grey scale [0, 1]
SHARE_FLOOR = 0.5  # of a label's share among labelled pixels


def health_warnings(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Problems in the last rows of a log, by name, with their remedy.

    * ``collapse/z<n>``: under 1 % of a level's entries depend on the slice (posterior collapse), at
      the last validation. The KL does not show it: even an uninformative bottom-up estimate,
      multiplied by the prior, costs .1 nats per entry.
    * ``mode_gap``: in evaluation mode the loss is higher than in training mode, by more than .2.
    * ``styles/<pair>``: two styles differ by less than .01 of the grey scale (style collapse).
    * ``share/<label>``: on labelled pixels, a label is predicted less than half as often as it
      occurs.

    The last two need ten rows with the metrics of
    :func:`~pyro_stitchnet.training.diagnostics.bound_metrics`.
    """
    problems = _at_validation(rows)
    judged = [row for row in rows if "elbo/kl" in row][-ROWS:]
    if len(judged) < ROWS:
        return problems
    mean = pd.DataFrame(judged).mean()
    for name, gap in mean.filter(regex="^style_gap/").items():
        if gap < GAP_FLOOR:
            pair = str(name).removeprefix("style_gap/")
            problems[f"styles/{pair}"] = (
                f"the styles {pair} are alike (mean gap {gap:.4f} of the grey scale): style "
                "collapse; label more slices or, in a preset without a classifier, raise "
                "--label-weight"
            )
    for label in LABELS:
        true, predicted = mean.get(f"labelled/{label}", 0.0), mean.get(f"predicted/{label}", 0.0)
        if predicted < SHARE_FLOOR * true:
            problems[f"share/{label}"] = (
                f"{label} is predicted on {predicted:.2%} of the labelled pixels, but occurs on "
                f"{true:.2%}; train longer, or raise --label-weight"
            )
    return problems


def _at_validation(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Problems in the last row of a validation."""
    last = next((row for row in reversed(rows) if "mode_gap" in row), {})
    problems = {}
    if not last.get("mode_gap", 0.0) <= MODE_GAP:  # NaN counts as too large
        problems["mode_gap"] = (
            f"evaluation mode raises the loss by {last['mode_gap']:.2f}: batch norm's statistics "
            "do not fit the weights; train longer, or take larger batches or --norm group"
        )
    for n in range(1, LEVELS + 1):
        share = last.get(f"active/z{n}", 1.0)
        if share < ACTIVE_FLOOR:
            problems[f"collapse/z{n}"] = (
                f"z{n} holds almost no information on the slices, on which {share:.1%} of its "
                "entries depend: posterior collapse; raise --kl-warmup or --free-bits"
            )
    return problems
