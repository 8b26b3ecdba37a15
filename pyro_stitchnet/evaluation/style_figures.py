"""Whether styles differ and labels matter: what tells a stitching model from one that collapsed."""

import torch

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import Slices, allowed_sets
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS
from pyro_stitchnet.posterior import segment, style_gaps
from pyro_stitchnet.training.diagnostics import diagnose

__all__ = ["STYLE_FIGURES", "style_figures"]

STYLE_FIGURES = (
    "style_gap_mean", "style_gap_least", "label_drop", "segmentation_spread",
    *(f"kl_z{n}" for n in range(1, LEVELS + 1)), *(f"share_{label}" for label in LABELS),
)  # fmt: skip
"""What :func:`style_figures` tells."""


def style_figures(net: StitchNet, slices: Slices, *, samples: int = 4) -> dict[str, float]:
    """What a model is compared by beside its Dice, on slices whose labels it was never shown.

    Args:
        net: a trained model.
        slices: with one label for every pixel.
        samples: draws of z for styles and segmentations, from torch's global generator.

    Returns:
        ``style_gap_mean`` and ``style_gap_least``, over the six pairs of styles, of their mean
        absolute difference inside the lung, grey units: 0 where styles are alike.
        ``label_drop``: nats by which log p(x | y, z) of a pixel of lung falls under a wrong label.
        ``segmentation_spread``: how far, in total variation inside the lung, a slice's segmentation
        is from the mean segmentation of all: 0 where every segmentation is the same.
        ``kl_z1`` ...: the levels' KL, nats per pixel of the slice. ``share_...``: of each label
        among the likeliest labels inside the lung.
    """
    device = next(net.parameters()).device
    images = slices.images.to(device)
    lung = slices.labels().to(device) > 0
    answer = segment(net, images, samples=samples)
    gaps = style_gaps(answer.styles.movedim(1, -1)[lung]).values()
    apart = (answer.probabilities - answer.probabilities.mean(0, keepdim=True)).abs().sum(1) / 2
    allowed = allowed_sets(slices.label_sets).to(device)
    allowed[~lung] = True  # no single label: left out of the drop
    found = diagnose(net, Batch(images, allowed))
    shares = torch.bincount(answer.labels[lung], minlength=len(LABELS)) / lung.sum()
    return {
        "style_gap_mean": sum(gaps) / len(gaps),
        "style_gap_least": min(gaps),
        "label_drop": found["label_drop"],
        "segmentation_spread": float(apart[lung].mean()),
        **{f"kl_z{n}": found[f"kl/z{n}"] for n in range(1, LEVELS + 1)},
        **{f"share_{label}": float(s) for label, s in zip(LABELS, shares, strict=True)},
    }
