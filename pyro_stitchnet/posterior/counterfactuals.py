"""Counterfactual slices: the same slice with other labels, such as a lesion healed or inserted.

The steps are those of a structural causal model (Pearl): abduction infers what does not depend on
the labels (z, and the deviation of each pixel from its style); action sets other labels; prediction
stitches the slice again.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY, LABELS
from pyro_stitchnet.model.checks import check_slices
from pyro_stitchnet.model.distributions import pick, standard_score
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior._queries import (
    check_labels,
    draws_of_z,
    in_batches,
    mean,
)
from pyro_stitchnet.posterior.options import ReadOutOptions
from pyro_stitchnet.posterior.segmentation import check_read_out, probabilities

__all__ = ["HEALED", "Counterfactual", "Pixels", "counterfactual", "edited", "region"]

HEALED: Mapping[int, int] = {GGO: HEALTHY, CONSOLIDATION: HEALTHY}
"""The change of labels that heals all lesions."""

Pixels = Literal["mean", "kept", "drawn"]
"""How relabelled pixels get their grey values; see :func:`counterfactual`."""


@dataclass(frozen=True)
class Counterfactual:
    """N counterfactual slices.

    Attributes:
        image: (N, H, W) in [0, 1]; outside ``changed`` equal to the slice, bit for bit.
        changed: the pixels whose label changed, bool (N, H, W).
        present: the labels before, int64 (N, H, W).
        labels: the labels after, int64 (N, H, W).
    """

    image: Tensor
    changed: Tensor
    present: Tensor
    labels: Tensor


def edited(labels: Tensor, change: Mapping[int, int], within: Tensor | None = None) -> Tensor:
    """Return a copy of a label map with labels replaced by others.

    ``HEALED`` heals all lesions, ``{GGO: CONSOLIDATION}`` consolidates ground glass, and
    ``{HEALTHY: GGO}`` with a mask inserts a lesion into healthy lung.

    Args:
        labels: int64 (N, H, W).
        change: new labels by present label.
        within: a mask of the pixels to change, bool (N, H, W), or (H, W) for all slices; everywhere
            by default.

    Raises:
        ValueError: a label is unknown, or ``within`` is not a mask of this shape.
    """
    if strange := [k for pair in change.items() for k in pair if k not in range(len(LABELS))]:
        raise ValueError(f"no label {strange[0]}; there are 0 to {len(LABELS) - 1}")
    shapes = (labels.shape, labels.shape[1:])
    if within is not None and (within.dtype != torch.bool or within.shape not in shapes):
        raise ValueError(
            f"within is {within.dtype} {tuple(within.shape)}; give bool, "
            f"{tuple(shapes[0])} or {tuple(shapes[1])}"
        )
    new = labels.clone()
    for before, after in change.items():
        here = labels == before
        new[here if within is None else here & within] = after
    return new


def region(
    labels: Tensor, at: tuple[int, int], of: Collection[int] = (GGO, CONSOLIDATION)
) -> Tensor:
    """Return the mask of the connected region around a pixel, bool (H, W), for :func:`edited`.

    By default the region is the lesion at this pixel; with the labels of healthy lung and of both
    lesions it is the lung.

    Args:
        labels: int64 (H, W).
        at: row and column of a pixel of the region.
        of: the labels of the region. Diagonal neighbours are connected.

    Raises:
        ValueError: the pixel is outside the slice, or has none of these labels.
    """
    if not all(0 <= place < side for place, side in zip(at, labels.shape, strict=True)):
        raise ValueError(
            f"pixel {at} is outside the slice of {tuple(labels.shape)}; give row and column"
        )
    parts, _ = ndimage.label(np.isin(labels.cpu().numpy(), list(of)), np.ones((3, 3)))
    if not parts[at]:
        raise ValueError(
            f"pixel {at} is {LABELS[int(labels[at])]}; choose a pixel of "
            f"{', '.join(LABELS[k] for k in of)}"
        )
    return torch.from_numpy(parts == parts[at]).to(labels.device)


def counterfactual(
    net: StitchNet,
    x: Tensor,
    labels: Tensor,
    *,
    present: Tensor | None = None,
    pixels: Pixels = "kept",
    samples: int = 8,
    rounds: int = 2,
    batch_size: int = 8,
) -> Counterfactual:
    """Stitch slices with other labels; pixels whose label stays keep their grey values.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        labels: the new labels, int64 (N, H, W); see :func:`edited`.
        present: the present labels, int64 (N, H, W), or their probabilities, (N, K, H, W); by
            default those of :func:`~pyro_stitchnet.posterior.probabilities`. Pixels whose likeliest
            label is not the new one are changed.
        pixels: the standard score of a changed pixel under its new style: "kept" takes its score
            under the present style, in expectation over the present labels, which preserves noise
            and vessels; "mean" takes 0; "drawn" draws it.
        samples: draws of z to average the styles over; 0 uses the mean of each level.
        rounds: how often to infer the styles: first from the slice, then from the result of the
            round before, as in imputation (Rezende et al. 2014).
        batch_size: slices per forward pass.

    Raises:
        ValueError: slices or labels do not fit the model, an option is unknown or out of range, or
            the model has no labels.
    """
    check_read_out(net, "prior")  # refuses a model without labels
    if pixels not in get_args(Pixels):
        raise ValueError(f"pixels {pixels!r} is unknown; choose one of {get_args(Pixels)}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    check_slices(net, x)
    check_labels(labels, x)
    if present is None:
        options = ReadOutOptions(samples=samples, batch_size=batch_size)
        present = probabilities(net, x, options)
    labels, p = labels.to(x.device), _probabilities(present.to(x.device), x)
    present = p.argmax(-1)
    changed = labels != present

    grey, deviation = _moments(net, x, samples, batch_size)
    score = standard_score(x, grey, deviation, p)
    if pixels == "mean":
        score = torch.zeros_like(x)
    elif pixels == "drawn":
        score = torch.randn_like(x)
    image = x
    for number in range(rounds):
        if number:
            grey, deviation = _moments(net, image, samples, batch_size)
        new = pick(grey, labels) + score * pick(deviation, labels)
        image = torch.where(changed, new.clamp(0, 1), x)
    return Counterfactual(image, changed, present, labels)


def _probabilities(present: Tensor, x: Tensor) -> Tensor:
    """Convert labels (N, H, W) or probabilities (N, K, H, W) to probabilities (N, H, W, K)."""
    if present.ndim == x.ndim:
        check_labels(present, x)
        return functional.one_hot(present.long(), len(LABELS)).to(x)
    if present.shape != (len(x), len(LABELS), *x.shape[1:]):
        raise ValueError(
            f"present has shape {tuple(present.shape)}; give labels {tuple(x.shape)}, or "
            f"probabilities {(len(x), len(LABELS), *x.shape[1:])}"
        )
    return present.movedim(1, -1)


def _moments(net: StitchNet, x: Tensor, samples: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each pixel under each style, over draws of z: (N, H, W, K)."""

    def query(part: Tensor) -> Tensor:
        """Average over z the style's mean, its variance and its squared mean."""
        return mean(
            torch.stack([style.mean, style.variance, style.mean.square()], 1)
            for style in (net.picture(z1).styles for z1 in draws_of_z(net, part, samples))
        )

    moments = in_batches(net, x, query, batch_size=batch_size)
    first, within, second = moments.unbind(1)
    return first, (within + (second - first.square()).clamp_min(0)).sqrt()
