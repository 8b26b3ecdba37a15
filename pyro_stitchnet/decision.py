"""From the probabilities of the labels to a label for every pixel."""

from typing import Literal, get_args

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pyro_stitchnet.labels import CONSOLIDATION, GGO

__all__ = ["LEAST_CUT", "Decision", "best_cut", "check_decision", "decide"]

Decision = Literal["likeliest", "dice"]
"""Each pixel's likeliest label, or the infection of greatest expected Dice."""

LEAST_CUT = 0.25
"""The least cut: with a lower one, slices without infection would always show some."""


def decide(p: Tensor, decision: Decision = "likeliest", least_patch: float = 0) -> Tensor:
    """A label for every pixel.

    Args:
        p: probabilities of the labels, (N, K, H, W).
        decision: ``"likeliest"`` takes each pixel's likeliest label. ``"dice"`` first takes for
            infected (GGO or consolidation) the pixels whose probability of it reaches
            :func:`best_cut`, then the likeliest label of that kind. It finds more where the model
            is unsure of all infection that it sees, as on scans of another source.
        least_patch: pixels that a patch of consolidation has at least, corners joined; what is
            smaller becomes ground glass. Bayes' rule pixel by pixel makes specks of the brightest
            pixels of ground glass, in slices without consolidation too (docs/study.md).

    Returns:
        The labels, int64 (N, H, W).

    Raises:
        ValueError: there is no such decision, or ``least_patch`` is below 0.
    """
    check_decision(decision, least_patch)
    if decision == "likeliest":
        labels = p.argmax(1)
    else:
        infected = p[:, GGO:].sum(1)
        cut = best_cut(infected)[:, None, None]
        labels = torch.where(infected >= cut, p[:, GGO:].argmax(1) + GGO, p[:, :GGO].argmax(1))
    if least_patch <= 1:
        return labels
    specks = _specks((labels == CONSOLIDATION).cpu().numpy(), least_patch)
    return labels.masked_fill(torch.from_numpy(specks).to(labels.device), GGO)


def check_decision(decision: str, least_patch: float = 0) -> None:
    """Refuse what is no decision, before any long work.

    Raises:
        ValueError: there is no such decision (the message lists those there are), or
            ``least_patch`` is below 0.
    """
    if decision not in get_args(Decision):
        raise ValueError(f"decision {decision!r} is unknown; choose one of {get_args(Decision)}")
    if not least_patch >= 0:
        raise ValueError(f"least_patch must be at least 0, got {least_patch}")


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


def _specks(mask: np.ndarray, least: float) -> np.ndarray:
    """The patches of bool (N, H, W), each within its slice, of fewer than ``least`` pixels."""
    within = np.zeros((3, 3, 3), bool)
    within[1] = True
    patches, _ = ndimage.label(mask, within)
    small = np.bincount(patches.ravel()) < least
    small[0] = False  # what is no patch
    return small[patches]
