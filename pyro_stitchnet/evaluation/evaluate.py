"""Evaluate a model on labelled slices: Table 1, and the pictures of Fig. 2 and Fig. 6b."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.metrics.scores import GROUPS, INFECTION, slice_scores
from pyro_stitchnet.evaluation.tables import save
from pyro_stitchnet.figures import save_figure, segmentations, styles
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOut, seeded, segment, style_gaps
from pyro_stitchnet.posterior.decision import Decision, check_decision, decide, without_specks

__all__ = ["WRITTEN", "evaluate"]

PICTURED = 5

WRITTEN = (
    "scores.csv", "table.csv", "table.json", "table.md", "segmentations.png", "styles.png",
)  # fmt: skip
"""The files that :func:`evaluate` writes."""


def evaluate(
    net: StitchNet,
    slices: Slices,
    out: str | Path,
    *,
    read_out: ReadOut | None = None,
    samples: int = 8,
    views: int = 1,
    decision: Decision = "likeliest",
    least_patch: float = 0,
    seed: int = 0,
    info: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Segment ``slices``, compare with their labels, write tables and pictures to ``out``.

    Args:
        net: a trained model.
        slices: with one label for every pixel; or with sets that tell infection from the rest, of
            which infection alone is scored.
        out: folder for the files :data:`WRITTEN`; made where missing.
        read_out: see :func:`~pyro_stitchnet.posterior.segment`.
        samples: see :func:`~pyro_stitchnet.posterior.segment`.
        views: see :func:`~pyro_stitchnet.posterior.segment`.
        decision: see :func:`~pyro_stitchnet.posterior.decision.decide`.
        least_patch: see :func:`~pyro_stitchnet.posterior.decision.without_specks`.
        seed: of the draws.
        info: plain data on the run, kept in ``table.json`` beside the style gaps.

    Returns:
        The scores of every slice, see :func:`~pyro_stitchnet.evaluation.metrics.scores.slice_scores`.

    Raises:
        ValueError: a pixel of ``slices`` does not tell whether there is a lesion, or there is no
            such decision.
    """
    check_decision(decision, least_patch)
    told = all(slices.complete)  # else the lesions at most together
    truth = slices.labels() if told else slices.infection()
    device = next(net.parameters()).device
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with seeded(seed, device):
        answer = segment(
            net, slices.images.to(device), read_out=read_out, samples=samples, views=views
        )
    p = without_specks(answer.probabilities, decision, least_patch)
    labels = decide(p, decision).cpu()
    groups = tuple(GROUPS) if told else (INFECTION,)
    scores = slice_scores(truth, labels, slices.names, slices.patients, groups)
    save(
        scores,
        out,
        read_out=read_out,
        samples=samples,
        views=views,
        decision=decision,
        least_patch=least_patch,
        seed=seed,
        style_gap=style_gaps(answer.styles.movedim(1, -1)),
        **(info or {}),
    )

    shown = _across_severity(truth)
    names = [slices.names[i] for i in shown]
    images = slices.images[shown].numpy()
    save_figure(
        segmentations(
            images, truth[shown].numpy(), {"StitchNet": labels[shown].numpy()}, names=names
        ),
        out / "segmentations.png",
    )
    save_figure(
        styles(
            images,
            truth[shown].numpy(),
            labels[shown].numpy(),
            answer.styles[shown].cpu().numpy(),
            answer.stitched[shown].cpu().numpy(),
            names=names,
        ),
        out / "styles.png",
    )
    return scores


def _across_severity(truth: torch.Tensor) -> list[int]:
    """Slices spread evenly over the ranks of lesion size, largest first: not the prettiest five."""
    order = (truth >= 2).flatten(1).sum(1).argsort(descending=True)
    ranks = torch.linspace(0, len(order) - 1, min(PICTURED, len(order))).long()
    return order[ranks].tolist()
