"""Whether a lesion's probability is the frequency with which it is there."""

import torch
from torch import Tensor

from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO

__all__ = ["calibration"]

BINS = 15


def calibration(probabilities: Tensor, truth: Tensor) -> dict[str, float]:
    """Expected calibration error and Brier score of both lesions, over the pixels of the lung.

    For a lesion's probability p and its presence t, 0 or 1 (Guo et al., ICML 2017; Brier, 1950)::

        ECE = SUM over 15 equal bins of p: share of pixels in the bin * |mean p - mean t|
        Brier = mean (p - t)^2

    Args:
        probabilities: of each label, (N, K, H, W).
        truth: label maps (N, H, W).

    Returns:
        ``ece_ggo``, ``brier_ggo``, ``ece_con`` and ``brier_con``; NaN where no pixel is lung.
    """
    lung = truth != BACKGROUND
    figures = {}
    for name, label in (("ggo", GGO), ("con", CONSOLIDATION)):
        p, t = probabilities[:, label][lung].double(), (truth == label)[lung].double()
        place = (p * BINS).long().clamp_max(BINS - 1)
        gaps = torch.zeros(BINS, dtype=p.dtype, device=p.device).index_add(0, place, p - t)
        figures[f"ece_{name}"] = float(gaps.abs().sum() / len(p)) if len(p) else float("nan")
        figures[f"brier_{name}"] = float((p - t).square().mean())
    return figures
