"""Evaluate a model on labelled slices: Table 1, and the figures of Fig. 2 and Fig. 6b."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.coverage import Coverage
from pyro_stitchnet.evaluation.tables import save
from pyro_stitchnet.figures import save_figure, segmentations, styles
from pyro_stitchnet.metrics.scores import GROUPS, INFECTION, slice_scores
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions, seeded, segment, style_gaps
from pyro_stitchnet.posterior.decision import decide, without_specks

__all__ = ["WRITTEN", "evaluate"]

DRAWN = 5  # slices in each figure

WRITTEN = (
    "scores.csv", "table.csv", "table.json", "table.md", "segmentations.png", "styles.png",
)  # fmt: skip
"""The files that :func:`evaluate` writes."""


def evaluate(
    net: StitchNet,
    slices: Slices,
    out: str | Path,
    options: ReadOutOptions | None = None,
    info: Mapping[str, Any] | None = None,
    coverage: Coverage | None = None,
) -> pd.DataFrame:
    """Segment labelled slices, score the segmentations, and write tables and figures.

    Args:
        net: a trained model.
        slices: with one label for every pixel; or with label sets that separate infection from the
            rest, and then infection alone is scored.
        out: folder for the files :data:`WRITTEN`; created if missing.
        options: of the segmentation.
        info: plain data on the run, written to ``table.json`` with options and style gaps.
        coverage: how many slices were left out and why; by default none.

    Returns:
        The scores of every slice; see
        :func:`~pyro_stitchnet.metrics.scores.slice_scores`.

    Raises:
        ValueError: the label set of a pixel contains labels with and without infection, or the
            model lacks the read-out.
    """
    options, out = options or ReadOutOptions(), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    complete = all(slices.complete)
    truth = slices.labels() if complete else slices.infection()
    device = next(net.parameters()).device
    with seeded(options.seed, device):
        result = segment(net, slices.images.to(device), options)
    p = without_specks(result.probabilities, options.decision, options.least_patch)
    labels = decide(p, options.decision).cpu()
    groups = tuple(GROUPS) if complete else (INFECTION,)
    scores = slice_scores(truth, labels, slices.names, slices.patients, groups)
    gaps = style_gaps(result.style_means.movedim(1, -1))
    coverage = coverage or Coverage(len(slices), len(slices))
    save(scores, out, coverage, **asdict(options), style_gap=gaps, **(info or {}))

    drawn = _across_severity(truth)
    names = [slices.names[i] for i in drawn]
    images, true, predicted = (maps[drawn].numpy() for maps in (slices.images, truth, labels))
    save_figure(
        segmentations(images, true, {"StitchNet": predicted}, names=names),
        out / "segmentations.png",
    )
    style_maps, stitched = (maps[drawn].cpu().numpy() for maps in (result.styles, result.stitched))
    save_figure(
        styles(images, true, predicted, style_maps, stitched, names=names), out / "styles.png"
    )
    return scores


def _across_severity(truth: torch.Tensor) -> list[int]:
    """Choose slices evenly spread over the ranks of lesion size, largest first."""
    order = (truth >= 2).flatten(1).sum(1).argsort(descending=True)
    ranks = torch.linspace(0, len(order) - 1, min(DRAWN, len(order))).long()
    return order[ranks].tolist()
