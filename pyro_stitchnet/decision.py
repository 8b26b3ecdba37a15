"""From the probabilities of the labels to a label for every pixel."""

from typing import Literal, get_args

import torch
from torch import Tensor

from pyro_stitchnet.labels import GGO

__all__ = ["LEAST_CUT", "Decision", "best_cut", "check_decision", "decide"]

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


def check_decision(decision: str) -> None:
    """Refuse what is no decision, before any long work.

    Raises:
        ValueError: there is no such decision; the message lists those there are.
    """
    if decision not in get_args(Decision):
        raise ValueError(f"decision {decision!r} is unknown; choose one of {get_args(Decision)}")


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
