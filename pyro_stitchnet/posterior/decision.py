"""Labels from label probabilities."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pyro_stitchnet.labels import CONSOLIDATION, GGO
from pyro_stitchnet.posterior.options import Decision, check_decision

__all__ = ["LEAST_CUT", "best_cut", "decide", "without_specks"]

LEAST_CUT = 0.25
"""Lower bound of :func:`best_cut`; without it every slice would have some infection."""


def decide(p: Tensor, decision: Decision = "likeliest") -> Tensor:
    """Choose a label for every pixel.

    Args:
        p: label probabilities, (N, K, H, W).
        decision: "likeliest" takes the likeliest label of each pixel. "dice" marks a pixel
            as infected (GGO or consolidation) if its probability of infection reaches
            :func:`best_cut`, and then takes the likelier lesion. It finds more infection where the
            model is uncertain, as on scans of other hospitals.

    Returns:
        The labels, int64 (N, H, W).

    Raises:
        ValueError: the decision is unknown.
    """
    check_decision(decision)
    if decision == "likeliest":
        return _likeliest(p)
    infected = p[:, GGO:].sum(1)
    cut = best_cut(infected)[:, None, None]
    return torch.where(infected >= cut, _likeliest(p[:, GGO:]) + GGO, _likeliest(p[:, :GGO]))


def _likeliest(p: Tensor) -> Tensor:
    """Return ``p.argmax(1)``, which takes many times longer on CPUs."""
    greatest, labels = p[:, 0], torch.zeros_like(p[:, 0], dtype=torch.long)
    for label in range(1, p.shape[1]):
        labels = labels.masked_fill_(p[:, label] > greatest, label)
        greatest = torch.maximum(greatest, p[:, label])
    return labels


def without_specks(p: Tensor, decision: Decision, least_patch: float) -> Tensor:
    """Turn small patches of consolidation into GGO.

    Bayes' rule, applied to single pixels, makes consolidation of the brightest pixels of GGO, also
    in slices without consolidation (docs/study.md). Within small patches GGO receives the
    probability of consolidation; the probability of infection stays.

    Args:
        p: label probabilities, (N, K, H, W).
        decision: of the labels whose patches are measured, as for :func:`decide`.
        least_patch: smallest patch that stays, in pixels of one slice; diagonal neighbours are
            connected.

    Returns:
        New probabilities (N, K, H, W); ``p`` itself if ``least_patch`` is at most 1.

    Raises:
        ValueError: the decision is unknown, or ``least_patch`` is below 0 or not finite.
    """
    check_decision(decision, least_patch)
    if least_patch <= 1:
        return p
    dense = (decide(p, decision) == CONSOLIDATION).cpu().numpy()
    within = np.zeros((3, 3, 3), bool)
    within[1] = True
    patches, _ = ndimage.label(dense, within)
    small = np.bincount(patches.ravel(), minlength=1) < least_patch
    small[0] = False  # the background
    specks = torch.from_numpy(small[patches]).to(p.device)
    new = p.clone()
    new[:, GGO] += p[:, CONSOLIDATION] * specks
    new[:, CONSOLIDATION] *= ~specks
    return new


def best_cut(p: Tensor) -> Tensor:
    """The probability of infection above which a pixel counts as infected, for each slice.

    It maximises the expected Dice of the slice. With independent pixels, the k likeliest pixels
    have an expected Dice of about 2 * (sum of their p) / (k + sum of all p), and the best k are the
    pixels of at least half the greatest value (Lipton, Elkan & Naryanaswamy, ECML PKDD 2014). The
    cut is 1/2 where the model is certain and lower elsewhere.

    Args:
        p: probabilities of infection, (N, H, W).

    Returns:
        The cuts, (N,), from :data:`LEAST_CUT` to 1/2.
    """
    ordered = p.float().flatten(1).sort(1, descending=True).values
    taken = torch.arange(1, ordered.shape[1] + 1, device=p.device)
    expected = 2 * ordered.cumsum(1) / (taken + ordered.sum(1, keepdim=True))
    return (expected.amax(1) / 2).clamp(min=LEAST_CUT)
