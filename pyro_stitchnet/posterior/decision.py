"""From the probabilities of the labels to a label for every pixel."""

import math
from typing import Literal, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pyro_stitchnet.labels import CONSOLIDATION, GGO

__all__ = ["LEAST_CUT", "Decision", "best_cut", "check_decision", "decide", "without_specks"]

Decision = Literal["likeliest", "dice"]
"""Each pixel's likeliest label, or the infection of greatest expected Dice."""

LEAST_CUT = 0.25
"""The least cut: with a lower one, slices without infection would always show some."""


def decide(p: Tensor, decision: Decision = "likeliest") -> Tensor:
    """A label for every pixel.

    Args:
        p: probabilities of the labels, (N, K, H, W).
        decision: ``"likeliest"`` takes each pixel's likeliest label. ``"dice"`` first takes for
            infected (GGO or consolidation) the pixels whose probability of it reaches
            :func:`best_cut`, then the likeliest label of that kind. It finds more where the model
            is unsure of all infection that it sees, as on scans of another source.

    Returns:
        The labels, int64 (N, H, W).

    Raises:
        ValueError: there is no such decision.
    """
    check_decision(decision)
    if decision == "likeliest":
        return p.argmax(1)
    infected = p[:, GGO:].sum(1)
    cut = best_cut(infected)[:, None, None]
    return torch.where(infected >= cut, p[:, GGO:].argmax(1) + GGO, p[:, :GGO].argmax(1))


def without_specks(p: Tensor, decision: Decision, least_patch: float) -> Tensor:
    """Probabilities by which specks of consolidation are ground glass.

    Bayes' rule pixel by pixel makes specks of the brightest pixels of ground glass, in slices
    without consolidation too (docs/study.md). Where labels so decided have such a speck, ground
    glass is given consolidation's probability; the infection's stays what it was.

    Args:
        p: probabilities of the labels, (N, K, H, W).
        decision: how :func:`decide` is to take them.
        least_patch: pixels that a patch of consolidation has at least, each within its slice,
            corners joined.

    Returns:
        (N, K, H, W); ``p`` itself where no patch can be too small.

    Raises:
        ValueError: there is no such decision, or ``least_patch`` is below 0 or not finite.
    """
    check_decision(decision, least_patch)
    if least_patch <= 1:
        return p
    # patches are counted by SciPy, on the CPU
    dense = (decide(p, decision) == CONSOLIDATION).cpu().numpy()
    within = np.zeros((3, 3, 3), bool)
    within[1] = True
    patches, _ = ndimage.label(dense, within)
    small = np.bincount(patches.ravel(), minlength=1) < least_patch
    small[0] = False  # what is no patch
    specks = torch.from_numpy(small[patches]).to(p.device)
    new = p.clone()
    new[:, GGO] += p[:, CONSOLIDATION] * specks
    new[:, CONSOLIDATION] *= ~specks
    return new


def check_decision(decision: str, least_patch: float = 0) -> None:
    """Refuse what is no decision, before any long work.

    Raises:
        ValueError: there is no such decision (the message lists those there are), or
            ``least_patch`` is below 0 or not finite.
    """
    if decision not in get_args(Decision):
        raise ValueError(f"decision {decision!r} is unknown; choose one of {get_args(Decision)}")
    if not 0 <= least_patch < math.inf:
        raise ValueError(f"least_patch must be a number of pixels, at least 0, got {least_patch}")


def best_cut(p: Tensor) -> Tensor:
    """The least probability to be called infected, for the greatest expected Dice of a slice.

    Where pixels are independent given the slice, the k likeliest ones have about the expected Dice
    2 * (sum of their p) / (k + sum of all p), and the best k are those of at least half the
    greatest (Lipton, Elkan & Naryanaswamy, Optimal thresholding of classifiers to maximize F1
    measure, ECML PKDD 2014). So the cut is 1/2 where the model is sure, and lower where it is not.

    Args:
        p: probabilities of infection, (N, H, W).

    Returns:
        The cuts, (N,), from :data:`LEAST_CUT` to 1/2.
    """
    ordered = p.float().flatten(1).sort(1, descending=True).values
    taken = torch.arange(1, ordered.shape[1] + 1, device=p.device)
    expected = 2 * ordered.cumsum(1) / (taken + ordered.sum(1, keepdim=True))
    return (expected.amax(1) / 2).clamp(min=LEAST_CUT)
