"""Alarms: signs in a run's log that a model is not learning as it should."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.svae import LEVELS

__all__ = ["alarms"]

ROWS = 10  # of the log, averaged: a single batch is too noisy
KL_FLOOR = 1e-3  # nats per entry of a latent map
GAP_FLOOR = 0.01  # of the grey scale [0, 1]
SHARE_FLOOR = 0.5  # of a label's share among labelled pixels


def alarms(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Problems in the last rows of a log, by name, with their remedy.

    * ``collapse/z<n>``: the KL of a level is under .001 nats per entry of its map, so the level
      holds no information on the slice (posterior collapse).
    * ``styles/<pair>``: two styles differ by less than .01 of the grey scale (style collapse).
    * ``share/<label>``: on labelled pixels, a label is predicted less than half as often as it
      occurs.

    There is none before ten rows with the metrics of
    :func:`~pyro_stitchnet.training.diagnostics.bound_metrics`.
    """
    judged = [row for row in rows if "elbo/kl" in row][-ROWS:]
    if len(judged) < ROWS:
        return {}
    mean = pd.DataFrame(judged).mean()
    problems = {}
    for n in range(1, LEVELS + 1):
        entry = mean[f"kl/z{n}"] * 4**n  # pixels of the slice for one of the map
        if entry < KL_FLOOR:
            problems[f"collapse/z{n}"] = (
                f"z{n} holds almost no information on the slices (KL {entry:.1e} nats per entry): "
                "posterior collapse; raise --kl-warmup or --free-bits"
            )
    for name, gap in mean.filter(regex="^style_gap/").items():
        if gap < GAP_FLOOR:
            pair = str(name).removeprefix("style_gap/")
            problems[f"styles/{pair}"] = (
                f"the styles {pair} are alike (mean gap {gap:.4f} of the grey scale): style "
                "collapse; raise --label-weight, or label more slices"
            )
    for label in LABELS:
        true, predicted = mean.get(f"labelled/{label}", 0.0), mean.get(f"predicted/{label}", 0.0)
        if predicted < SHARE_FLOOR * true:
            problems[f"share/{label}"] = (
                f"{label} is predicted on {predicted:.2%} of the labelled pixels, but occurs on "
                f"{true:.2%}; train longer, or raise --label-weight"
            )
    return problems
