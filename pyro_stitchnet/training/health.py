"""Whether a run is well: alarms from its log, and why a step was not finite."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import pyro

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS
from pyro_stitchnet.training.diagnostics import diagnose

__all__ = ["alarms", "why_not_finite"]

WINDOW = 10  # rows of the log whose mean is judged: a batch alone says little
KL_FLOOR = 1e-3  # nats per entry of a latent map
GAP_FLOOR = 0.01  # grey units, of a window that is 1 wide
SHARE = 0.5  # of a label's share among labelled pixels


def alarms(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """What looks unhealthy in the last rows of a log, by name, with the remedy.

    * ``collapse/z<n>``: the KL of a level is under .001 nats per entry of its map, so that the
      level says nothing of the slice (posterior collapse).
    * ``styles/<pair>``: two styles differ by less than .01 of the grey scale (style collapse).
    * ``share/<label>``: on labelled pixels, a label is predicted less than half as often as it is
      there.

    There is none before ten rows with the figures of
    :func:`~pyro_stitchnet.training.diagnostics.diagnose`.
    """
    judged = [row for row in rows if "elbo/kl" in row][-WINDOW:]
    if len(judged) < WINDOW:
        return {}
    mean = pd.DataFrame(judged).mean()
    found = {}
    for n in range(1, LEVELS + 1):
        entry = mean[f"kl/z{n}"] * 4**n  # pixels of the slice for one of the map
        if entry < KL_FLOOR:
            found[f"collapse/z{n}"] = (
                f"z{n} says almost nothing of the slices (KL {entry:.1e} nats per entry): "
                "posterior collapse; raise --kl-warmup or --free-bits"
            )
    for name, gap in mean.filter(regex="^style_gap/").items():
        if gap < GAP_FLOOR:
            pair = str(name).removeprefix("style_gap/")
            found[f"styles/{pair}"] = (
                f"the styles {pair} are alike (mean gap {gap:.4f} of the grey scale): style "
                "collapse; raise --label-weight, or label more slices"
            )
    for label in LABELS:
        there, said = mean.get(f"told/{label}", 0.0), mean.get(f"told_share/{label}", 0.0)
        if said < SHARE * there:
            found[f"share/{label}"] = (
                f"{label} is predicted on {said:.2%} of the labelled pixels, but is on "
                f"{there:.2%}; train longer, or raise --label-weight"
            )
    return found


def why_not_finite(net: StitchNet, batch: Batch) -> str:
    """Which terms of the bound are not finite, on which slices of the batch, with one draw of z."""
    said = []
    for i, name in enumerate(batch.names or map(str, range(len(batch.x)))):
        one = Batch(batch.x[i : i + 1], batch.allowed[i : i + 1])
        if not one.x.isfinite().all():
            said.append(f"{name}: its grey values")
            continue
        with pyro.validation_enabled(False):  # which would raise at the first of them
            figures = diagnose(net, one)
        terms = ("elbo/log_px", "elbo/log_py", *(f"kl/z{n}" for n in range(LEVELS, 0, -1)))
        wrong = [term for term in terms if not math.isfinite(figures[term])]
        if wrong:
            said.append(f"{name}: {', '.join(wrong)}")
    if not said:
        return "each slice alone has a finite bound, so it is the gradient that is not"
    return "not finite: " + "; ".join(said)
