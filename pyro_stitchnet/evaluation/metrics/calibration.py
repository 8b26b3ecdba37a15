"""Whether a lesion's probability is the frequency with which it is there, and how to mend that."""

import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO

__all__ = ["calibration", "fit_temperature", "reliability", "tempered"]

BINS = 15
LESIONS = {"GGO": GGO, "consolidation": CONSOLIDATION}
LEAST = 1e-8  # a probability below it counts as this: a logarithm has to be taken
TEMPERATURES = (0.05, 20.0)


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
        gaps = _by_bin(p, p - t)
        figures[f"ece_{name}"] = float(gaps.abs().sum() / len(p)) if len(p) else float("nan")
        figures[f"brier_{name}"] = float((p - t).square().mean())
    return figures


def reliability(probabilities: Tensor, truth: Tensor) -> pd.DataFrame:
    """What a reliability diagram shows: frequency against probability of each lesion in the lung.

    Args:
        probabilities: of each label, (N, K, H, W).
        truth: label maps (N, H, W).

    Returns:
        A row a lesion and bin: ``lesion``, ``pixels`` in the bin, ``said`` (their mean
        probability), ``found`` (the share of them that are the lesion); NaN in empty bins.
    """
    lung = truth != BACKGROUND
    rows = []
    for name, label in LESIONS.items():
        p, t = probabilities[:, label][lung].double(), (truth == label)[lung].double()
        pixels, said, found = (_by_bin(p, values) for values in (torch.ones_like(p), p, t))
        columns = {"pixels": pixels.long(), "said": said / pixels, "found": found / pixels}
        rows.append(pd.DataFrame({"lesion": name, **{k: v.numpy() for k, v in columns.items()}}))
    return pd.concat(rows, ignore_index=True)


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities (N, K, ...) to the power 1 / T, normalised: flatter for T above 1."""
    return (probabilities.clamp_min(LEAST).log() / temperature).softmax(1)


def fit_temperature(probabilities: Tensor, truth: Tensor) -> float:
    """The temperature under which held-out labels are likeliest (Guo et al., ICML 2017).

    Args:
        probabilities: of each label, (N, K, H, W); of slices that neither trained the model nor
            are to be reported.
        truth: label maps (N, H, W); their lung counts.

    Returns:
        T in [.05, 20], for :func:`tempered`.

    Raises:
        ValueError: no pixel is lung.
    """
    lung = truth != BACKGROUND
    if not lung.any():
        raise ValueError("no pixel is lung: a temperature needs labelled lung to be fitted to")
    log_p = probabilities.movedim(1, -1)[lung].double().clamp_min(LEAST).log()
    label = truth[lung].unsqueeze(1)

    def cost(log_temperature: float) -> float:
        scaled = (log_p / 2.0**log_temperature).log_softmax(1)
        return -float(scaled.gather(1, label).mean())

    least, largest = (torch.tensor(t).log2().item() for t in TEMPERATURES)
    found = minimize_scalar(cost, bounds=(least, largest), method="bounded")
    return float(2.0**found.x)


def _by_bin(p: Tensor, values: Tensor) -> Tensor:
    """The sum of ``values`` over the pixels in each bin of ``p``."""
    place = (p * BINS).long().clamp_max(BINS - 1)
    return torch.zeros(BINS, dtype=p.dtype, device=p.device).index_add(0, place, values)
