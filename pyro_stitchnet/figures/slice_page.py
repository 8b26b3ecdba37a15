"""A page on one slice: segmentation, uncertainty, styles, counterfactuals and likelihoods."""

import base64
import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_stitchnet.figures.files import as_png
from pyro_stitchnet.figures.grids import NAMES, heat, overlay, sheet
from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import (
    HEALED,
    Answer,
    ReadOutOptions,
    Uncertainty,
    counterfactual,
    edited,
    log_weights,
    seeded,
    segment,
    uncertainty,
    unusual,
)
from pyro_stitchnet.posterior.decision import decide, without_specks
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.text import escaped

__all__ = ["Explanation", "draw", "explain", "web_page", "write_explanation"]


@dataclass(frozen=True)
class Explanation:
    """The results of a model on one slice.

    Attributes:
        image: the slice, (1, H, W).
        labels: the segmentation, int64 (1, H, W).
        segmentation: label probabilities and styles.
        uncertainty: of the labels.
        counterfactuals: titles and slices, each (1, H, W).
        measures: names and values of scalar results.
        truth: true labels, (1, H, W), if known.
    """

    image: Tensor
    labels: Tensor
    segmentation: Answer
    uncertainty: Uncertainty
    counterfactuals: Mapping[str, Tensor]
    measures: Mapping[str, float]
    truth: Tensor | None = None


def explain(
    net: StitchNet,
    image: Tensor,
    options: ReadOutOptions | None = None,
    *,
    draws: int = 8,
    truth: Tensor | None = None,
    reference: Tensor | None = None,
) -> Explanation:
    """Compute segmentation, uncertainty, counterfactuals and likelihoods of one slice.

    Args:
        net: a trained model.
        image: grey values in [0, 1], (H, W), on the model's device.
        options: of the segmentation; its seed is that of all draws.
        draws: draws of z for uncertainty, counterfactuals and likelihoods, at least 2.
        truth: true labels, int64 (H, W), if known.
        reference: ordinary slices, (M, H, W); with them the distance of this slice is computed.

    Raises:
        ValueError: the slice is not a valid input of the model, or ``draws`` is below 2.
    """
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}")
    options = options or ReadOutOptions()
    x = image.unsqueeze(0)
    distance = {}
    with seeded(options.seed, image.device):
        result = segment(net, x, options)
        p = without_specks(result.probabilities, options.decision, options.least_patch)
        labels = decide(p, options.decision)
        uncertain = uncertainty(net, x, replace(options, samples=draws))
        edits = {
            "healed": edited(labels, HEALED),
            "GGO made\nconsolidation": edited(labels, {GGO: CONSOLIDATION}),
        }
        counterfactuals = {
            title: counterfactual(net, x, new, present=p, samples=draws).image.cpu()
            for title, new in edits.items()
        }
        weights = log_weights(net, x, draws)[:, 0]
        if reference is not None:
            key = f"distance from {len(reference)} reference slices (standard deviations)"
            distance[key] = float(unusual(net, x, reference, draws))
    pixels = image.numel()
    importance_weighted = float(weights.logsumexp(0)) - math.log(draws)
    return Explanation(
        x.cpu(),
        labels.cpu(),
        Answer(p.cpu(), result.styles.cpu(), result.style_means.cpu()),
        Uncertainty(*(value.cpu() for value in vars(uncertain).values())),
        counterfactuals,
        {
            **_lung_shares(p),
            "mean entropy within the lung (nats)": _mean_in_lung(uncertain.entropy, labels),
            "evidence lower bound (nats per pixel)": float(weights.mean()) / pixels,
            f"importance-weighted bound, {draws} draws (nats per pixel)": importance_weighted
            / pixels,
            **distance,
        },
        None if truth is None else truth.unsqueeze(0).cpu(),
    )


def draw(explanation: Explanation, title: str) -> Figure:
    """Draw an explanation as one figure.

    Args:
        explanation: the result of :func:`explain`.
        title: of the figure.

    Returns:
        Slice, segmentation, truth if known, uncertainties, styles, reconstruction, counterfactuals.
    """
    image, labels = explanation.image[0].numpy(), explanation.labels[0].numpy()
    cells = {"slice": image, "segmentation": overlay(image, labels)}
    if explanation.truth is not None:
        cells["truth"] = overlay(image, explanation.truth[0].numpy())
    uncertainties = {
        "entropy": explanation.uncertainty.entropy,
        "mutual information": explanation.uncertainty.mutual_information,
        "disagreement of\nread-outs": explanation.uncertainty.disagreement,
    }
    for name, values in uncertainties.items():
        top = max(float(torch.quantile(values.flatten(), 0.999)), 1e-3)
        cells[f"{name}, 0 to {top:.2g}"] = heat(values[0].numpy(), top)
    for k, name in enumerate(NAMES):
        cells[f"{name} style"] = explanation.segmentation.styles[0, k].numpy()
    cells["stitched"] = explanation.segmentation.stitched[0].numpy()
    cells |= {name: values[0].numpy() for name, values in explanation.counterfactuals.items()}
    lines = [f"{name}: {value:.4g}" for name, value in explanation.measures.items()]
    return sheet(cells, title, lines)


def web_page(explanation: Explanation, title: str, about: Mapping[str, object]) -> str:
    """Return an explanation as one self-contained HTML file.

    Args:
        explanation: the result of :func:`explain`.
        title: of the page.
        about: more rows for its table, such as the model, the file and the seed.
    """
    image = base64.b64encode(as_png(draw(explanation, title))).decode()
    measures = {name: f"{value:.4g}" for name, value in explanation.measures.items()}
    rows = "\n".join(
        f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in {**measures, **about}.items()
    )
    name = html.escape(title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{name}</title>
<style>
body {{ font: 16px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }}
img {{ max-width: 100%; height: auto }}
td {{ padding: .1em 1.5em .1em 0; vertical-align: top }}
</style>
</head>
<body>
<h1>{name}</h1>
<p>Research software, not a medical device.</p>
<img alt="The slice, its segmentation, uncertainties, styles and counterfactuals"
 src="data:image/png;base64,{image}">
<table>
{rows}
</table>
<p>Entropy is the total uncertainty of a pixel's label. Mutual information is the part that comes
from differences between draws of z or views of the slice. Disagreement is the distance between the
model's read-outs. A style is the slice as if all of it were one tissue. A counterfactual changes
the pixels of one label only.</p>
</body>
</html>
"""


def write_explanation(
    explanation: Explanation, out: Path, title: str, about: Mapping[str, object]
) -> None:
    """Write ``explain.png`` and ``explain.html`` to a folder, created if missing."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "explain.png", as_png(draw(explanation, title)))
    write_atomically(out / "explain.html", escaped(web_page(explanation, title, about)))


def _lung_shares(probabilities: Tensor) -> dict[str, float]:
    """Return the expected share of the lung that each lesion takes."""
    areas = probabilities.sum((0, 2, 3))
    lung = float(areas[HEALTHY:].sum())
    if not lung:
        return {}
    names = {GGO: "GGO", CONSOLIDATION: "consolidation"}
    return {
        f"share of the lung that is {name}": float(areas[k]) / lung for k, name in names.items()
    }


def _mean_in_lung(values: Tensor, labels: Tensor) -> float:
    lung = labels >= HEALTHY
    return float(values[lung].mean()) if lung.any() else float("nan")
