"""All that a model says of one slice, on one page: a picture, and a web page that holds it."""

import base64
import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyro_stitchnet.figures import as_png
from pyro_stitchnet.figures.grids import NAMES, heat, overlay, sheet
from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import (
    HEALED,
    Answer,
    Uncertainty,
    counterfactual,
    edited,
    log_weights,
    seeded,
    segment,
    uncertainty,
    unusual,
)
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["Explanation", "explain", "page", "web_page", "write_explanation"]


@dataclass(frozen=True)
class Explanation:
    """What a model says of one slice.

    Attributes:
        image: the slice, (1, H, W).
        answer: labels and styles.
        doubt: how sure the labels are.
        changed: titles of counterfactuals and their pictures, each (1, H, W).
        figures: names of numbers and their values.
        truth: its labels, (1, H, W), where they are known.
    """

    image: Tensor
    answer: Answer
    doubt: Uncertainty
    changed: Mapping[str, Tensor]
    figures: Mapping[str, float]
    truth: Tensor | None = None


def explain(
    net: StitchNet,
    image: Tensor,
    *,
    truth: Tensor | None = None,
    usual: Tensor | None = None,
    samples: int = 8,
    views: int = 1,
    seed: int = 0,
) -> Explanation:
    """Ask a model all there is to ask about one slice.

    Args:
        net: a trained model.
        image: grey values in [0, 1], (H, W), on the model's device.
        truth: its label map, int64 (H, W), where it is known.
        usual: slices to say how unusual this one is against, (M, H, W).
        samples: draws of z.
        views: flips and quarter turns for the labels and their doubt.
        seed: of the draws.

    Raises:
        ValueError: the slice is not one that the model can be asked about.
    """
    x = image.unsqueeze(0)
    with seeded(seed, image.device):
        answer = segment(net, x, samples=samples, views=views)
        doubt = uncertainty(net, x, samples=max(samples, 2), views=views)
        labels, p = answer.labels, answer.probabilities
        wanted = {
            "healed": edited(labels, HEALED),
            "GGO made\nconsolidation": edited(labels, {GGO: CONSOLIDATION}),
        }
        changed = {
            title: counterfactual(net, x, new, present=p, samples=samples).image.cpu()
            for title, new in wanted.items()
        }
        weights = log_weights(net, x, max(samples, 2))[:, 0] / image.numel()
        strange = {}
        if usual is not None:
            key = f"distance from {len(usual)} usual slices (standard deviations)"
            strange[key] = float(unusual(net, x, usual, max(samples, 2)))
    bound = (weights * image.numel()).logsumexp(0) - math.log(len(weights))
    return Explanation(
        x.cpu(),
        Answer(answer.probabilities.cpu(), answer.styles.cpu(), answer.stitched.cpu()),
        Uncertainty(*(value.cpu() for value in vars(doubt).values())),
        changed,
        {
            **_shares(answer.probabilities),
            "mean entropy within the lung (nats)": _within(doubt.entropy, labels),
            "evidence lower bound (nats per pixel)": float(weights.mean()),
            f"importance-weighted bound, {len(weights)} draws (nats per pixel)": float(bound)
            / image.numel(),
            **strange,
        },
        None if truth is None else truth.unsqueeze(0).cpu(),
    )


def page(said: Explanation, title: str) -> Figure:
    """The explanation as one picture.

    Args:
        said: what the model said.
        title: what to call the slice.

    Returns:
        Slice, segmentation, truth where known, doubts, styles, reconstruction, counterfactuals.
    """
    image, labels = said.image[0].numpy(), said.answer.labels[0].numpy()
    cells = {"slice": image, "segmentation": overlay(image, labels)}
    if said.truth is not None:
        cells["truth"] = overlay(image, said.truth[0].numpy())
    doubts = {
        "entropy": said.doubt.entropy,
        "mutual information": said.doubt.mutual_information,
        "disagreement of\nread-outs": said.doubt.disagreement,
    }
    for name, values in doubts.items():
        top = max(float(torch.quantile(values.flatten(), 0.999)), 1e-3)
        cells[f"{name}, 0 to {top:.2g}"] = heat(values[0].numpy(), top)
    for k, name in enumerate(NAMES):
        cells[f"{name} style"] = said.answer.styles[0, k].numpy()
    cells["stitched"] = said.answer.stitched[0].numpy()
    cells |= {name: picture[0].numpy() for name, picture in said.changed.items()}
    lines = [f"{name}: {value:.4g}" for name, value in said.figures.items()]
    return sheet(cells, title, lines)


def web_page(said: Explanation, title: str, about: Mapping[str, object]) -> str:
    """The explanation as one HTML file that needs no other.

    Args:
        said: what the model said.
        title: what to call the slice.
        about: more rows for its table: the model, the file, the seed.
    """
    picture = base64.b64encode(as_png(page(said, title))).decode()
    numbers = {name: f"{value:.4g}" for name, value in said.figures.items()}
    rows = "\n".join(
        f"<tr><td>{html.escape(str(name))}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in {**numbers, **about}.items()
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
<img alt="The slice, its segmentation, doubts, styles and counterfactuals"
 src="data:image/png;base64,{picture}">
<table>
{rows}
</table>
<p>Entropy is all of the doubt about a pixel's label; mutual information the part that further draws
of z or views of the slice would settle; disagreement is between the model's ways to read a label. A
style is the slice as if all of it were one tissue; a counterfactual changes the pixels of the named
label alone.</p>
</body>
</html>
"""


def write_explanation(
    said: Explanation, out: Path, title: str, about: Mapping[str, object]
) -> None:
    """Write ``explain.png`` and ``explain.html`` to a folder, made where missing."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "explain.png", as_png(page(said, title)))
    write_atomically(out / "explain.html", web_page(said, title, about))


def _shares(probabilities: Tensor) -> dict[str, float]:
    """The share of the lung that each lesion takes, in expectation."""
    areas = probabilities.sum((0, 2, 3))
    lung = float(areas[HEALTHY:].sum())
    if not lung:
        return {}
    names = {GGO: "GGO", CONSOLIDATION: "consolidation"}
    return {
        f"share of the lung that is {name}": float(areas[k]) / lung for k, name in names.items()
    }


def _within(values: Tensor, labels: Tensor) -> float:
    lung = labels >= HEALTHY
    return float(values[lung].mean()) if lung.any() else float("nan")
