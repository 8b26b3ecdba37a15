"""What a slice would look like if its tissue were another: a lesion healed, turned or put in.

The steps are those of a structural causal model (Pearl): abduction, what of the picture is not of
its labels (z, and each pixel's deviation from its style); action, other labels; prediction, the
picture stitched anew.
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
from pyro_stitchnet.model.distributions import pick
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior._queries import (
    check_labels,
    check_slices,
    draws_of_z,
    in_batches,
    mean,
)
from pyro_stitchnet.posterior.segmentation import segment

__all__ = ["HEALED", "Counterfactual", "Pixels", "counterfactual", "edited", "region"]

HEALED: Mapping[int, int] = {GGO: HEALTHY, CONSOLIDATION: HEALTHY}
"""The change of labels that heals a lung."""

# Styles of free precision may be surer than a grey level is wide.
LEAST_DEVIATION = 1 / 255
MOST_SURPRISE = 4.0  # standard deviations: one stray pixel is not to turn black or white

Pixels = Literal["mean", "kept", "drawn"]
"""How a relabelled pixel gets its grey value, see :func:`counterfactual`."""


@dataclass(frozen=True)
class Counterfactual:
    """N slices as they would be.

    Attributes:
        image: (N, H, W) in [0, 1]; outside ``changed`` it is the slice, to the bit.
        changed: the pixels whose label became another, bool (N, H, W).
        present: the labels that the slices were taken to have, int64 (N, H, W).
        labels: those that they were given, int64 (N, H, W).
    """

    image: Tensor
    changed: Tensor
    present: Tensor
    labels: Tensor


def edited(labels: Tensor, change: Mapping[int, int], within: Tensor | None = None) -> Tensor:
    """A label map with labels changed into others.

    ``HEALED`` heals, ``{GGO: CONSOLIDATION}`` makes ground glass dense, and ``{HEALTHY: GGO}`` with
    a mask puts a lesion into the lung that lies under it.

    Args:
        labels: int64 (N, H, W); stays as it is.
        change: label by label.
        within: bool (N, H, W), or (H, W) for all slices: where to change them; everywhere by
            default.

    Raises:
        ValueError: there is no such label, or ``within`` is no mask of this shape.
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
    """The connected region of a label map around a pixel, for :func:`edited`: bool (H, W).

    By default this lesion; of healthy lung and both lesions, this lung.

    Args:
        labels: int64 (H, W).
        at: row and column of a pixel of the region.
        of: the labels that belong to it. Diagonal neighbours are connected.

    Raises:
        ValueError: the pixel is not there, or has none of these labels.
    """
    if not all(0 <= place < side for place, side in zip(at, labels.shape, strict=True)):
        raise ValueError(f"no pixel {at} in a slice of {tuple(labels.shape)}")
    parts, _ = ndimage.label(np.isin(labels.cpu().numpy(), list(of)), np.ones((3, 3)))
    if not parts[at]:
        raise ValueError(
            f"pixel {at} is {LABELS[int(labels[at])]}, none of "
            f"{', '.join(LABELS[k] for k in of)}; choose one that is"
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
    """Stitch slices with other labels, and keep all pixels whose label stays.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        labels: those that the slices shall have, int64 (N, H, W); :func:`edited` makes them.
        present: those that they have, int64 (N, H, W), or the probabilities of each, (N, K, H, W);
            by default what :func:`~pyro_stitchnet.posterior.segment` says. Pixels whose likeliest
            label is not the one that they shall have are changed.
        pixels: what becomes of a pixel's deviation from the style of its present label: "kept", it
            deviates as many standard deviations from the new style (so noise and vessels stay; in
            expectation, where the present label is not sure); "mean", it is that style's mean;
            "drawn", it is drawn anew.
        samples: draws of z to average the styles over; 0 takes each level's mean.
        rounds: how often the styles are inferred, from the second time on from the changed picture
            (as in Rezende et al. 2014, to impute), which says more of the new tissue's surroundings
            than the lesion does.
        batch_size: slices at a time.

    Raises:
        ValueError: slices, labels or an option are not as said.
    """
    if pixels not in get_args(Pixels):
        raise ValueError(f"pixels {pixels!r} is unknown; choose one of {get_args(Pixels)}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    check_slices(net, x)
    check_labels(labels, x)
    if present is None:
        present = segment(net, x, samples=samples, batch_size=batch_size).probabilities
    labels, p = labels.to(x.device), _probabilities(present.to(x.device), x)
    present = p.argmax(-1)
    changed = labels != present

    grey, deviation = _moments(net, x, samples, batch_size)
    deviations = (x.unsqueeze(-1) - grey) / deviation.clamp_min(LEAST_DEVIATION)
    surprise = (p * deviations.clamp(-MOST_SURPRISE, MOST_SURPRISE)).sum(-1)
    if pixels == "mean":
        surprise = torch.zeros_like(x)
    elif pixels == "drawn":
        surprise = torch.randn_like(x)
    image = x
    for turn in range(rounds):
        if turn:
            grey, deviation = _moments(net, image, samples, batch_size)
        new = pick(grey, labels) + surprise * pick(deviation, labels)
        image = torch.where(changed, new.clamp(0, 1), x)
    return Counterfactual(image, changed, present, labels)


def _probabilities(present: Tensor, x: Tensor) -> Tensor:
    """Labels (N, H, W), or probabilities (N, K, H, W), as probabilities (N, H, W, K)."""
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
    """Mean and standard deviation of a pixel under each style, z averaged over: (N, H, W, K)."""

    def ask(part: Tensor) -> Tensor:
        """The means of a pixel's grey value, its variance and the square of its mean."""
        return mean(
            torch.stack([style.mean, style.variance, style.mean.square()], 1)
            for style in (net.picture(z1).styles for z1 in draws_of_z(net, part, samples))
        )

    found = in_batches(net, x, ask, samples=samples, batch_size=batch_size)
    first, within, second = found.unbind(1)
    return first, (within + (second - first.square()).clamp_min(0)).sqrt()
