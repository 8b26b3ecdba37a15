"""Whether the styles differ and the labels matter: metrics that reveal a collapsed model."""

import torch

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import Slices, allowed_sets
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS
from pyro_stitchnet.posterior import ReadOutOptions, segment, style_gaps
from pyro_stitchnet.training.diagnostics import diagnose

__all__ = ["STYLE_METRICS", "style_metrics"]

STYLE_METRICS = (
    "style_gap_mean", "style_gap_least", "label_drop", "segmentation_spread",
    *(f"kl_z{n}" for n in range(1, LEVELS + 1)), *(f"share_{label}" for label in LABELS),
)  # fmt: skip
"""The keys that :func:`style_metrics` returns."""


def style_metrics(
    net: StitchNet, slices: Slices, options: ReadOutOptions | None = None
) -> dict[str, float]:
    """Return metrics of a model's styles and labels on test slices.

    Args:
        net: a trained model.
        slices: with one label for every pixel.
        options: of the segmentation; draws come from torch's global generator.

    Returns:
        ``style_gap_mean`` and ``style_gap_least``, over the six pairs of styles, of their mean
        absolute difference inside the lung, grey units: 0 where styles are alike.
        ``label_drop``: nats by which log p(x | y, z) of a pixel of lung falls under a wrong label.
        ``segmentation_spread``: total variation distance inside the lung between a slice's
        segmentation and the mean segmentation: 0 where all segmentations are the same.
        ``kl_z1`` ...: KL of each level, nats per pixel of the slice. ``share_...``: of each label
        among the likeliest labels inside the lung.
    """
    device = next(net.parameters()).device
    images = slices.images.to(device)
    lung = slices.labels().to(device) > 0
    result = segment(net, images, options)
    gaps = style_gaps(result.style_means.movedim(1, -1)[lung]).values()
    mean = result.probabilities.mean(0, keepdim=True)
    distance = (result.probabilities - mean).abs().sum(1) / 2
    allowed = allowed_sets(slices.label_sets).to(device)
    allowed[~lung] = True  # not a single label: left out of label_drop
    metrics = diagnose(net, Batch(images, allowed))
    shares = torch.bincount(result.labels[lung], minlength=len(LABELS)) / lung.sum()
    return {
        "style_gap_mean": sum(gaps) / len(gaps),
        "style_gap_least": min(gaps),
        "label_drop": metrics["label_drop"],
        "segmentation_spread": float(distance[lung].mean()),
        **{f"kl_z{n}": metrics[f"kl/z{n}"] for n in range(1, LEVELS + 1)},
        **{f"share_{label}": float(s) for label, s in zip(LABELS, shares, strict=True)},
    }
