"""Calibration of the lesions' probabilities: errors, reliability diagrams, temperature scaling."""

import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO

__all__ = ["calibration", "fit_temperature", "reliability", "tempered"]

BINS = 15
NAMES = {"GGO": GGO, "consolidation": CONSOLIDATION}
LEAST = 1e-8  # smallest probability whose logarithm is taken
TEMPERATURES = (0.05, 20.0)


def calibration(probabilities: Tensor, truth: Tensor) -> dict[str, float]:
    """Return the expected calibration error and Brier score of both lesions inside the lung.

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
    values = {}
    for name, label in (("ggo", GGO), ("con", CONSOLIDATION)):
        p, t = probabilities[:, label][lung].double(), (truth == label)[lung].double()
        gaps = _by_bin(p, p - t)
        values[f"ece_{name}"] = float(gaps.abs().sum() / len(p)) if len(p) else float("nan")
        values[f"brier_{name}"] = float((p - t).square().mean())
    return values


def reliability(probabilities: Tensor, truth: Tensor) -> pd.DataFrame:
    """Return the table of a reliability diagram: frequency against probability inside the lung.

    Args:
        probabilities: of each label, (N, K, H, W).
        truth: label maps (N, H, W).

    Returns:
        One row per lesion and bin: ``lesion``, ``pixels`` in the bin, ``probability`` (their mean
        predicted probability), ``frequency`` (the share of them with the lesion); NaN in empty
        bins.
    """
    lung = truth != BACKGROUND
    rows = []
    for name, label in NAMES.items():
        p, t = probabilities[:, label][lung].double(), (truth == label)[lung].double()
        pixels, predicted, true = (_by_bin(p, values) for values in (torch.ones_like(p), p, t))
        columns = {
            "pixels": pixels.long(),
            "probability": predicted / pixels,
            "frequency": true / pixels,
        }
        rows.append(pd.DataFrame({"lesion": name, **{k: v.numpy() for k, v in columns.items()}}))
    return pd.concat(rows, ignore_index=True)


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Return probabilities (N, K, ...) to the power 1 / T, normalised; T > 1 flattens them."""
    return (probabilities.clamp_min(LEAST).log() / temperature).softmax(1)


def fit_temperature(probabilities: Tensor, truth: Tensor) -> float:
    """Return the temperature that maximises the likelihood of held-out labels inside the lung.

    Guo et al., ICML 2017.

    Args:
        probabilities: of each label, (N, K, H, W), on slices that are neither training nor test
            slices.
        truth: label maps (N, H, W).

    Returns:
        T in [.05, 20], for :func:`tempered`.

    Raises:
        ValueError: no pixel is lung.
    """
    lung = truth != BACKGROUND
    if not lung.any():
        raise ValueError("no pixel is lung; give slices with labelled lung")
    log_p = probabilities.movedim(1, -1)[lung].double().clamp_min(LEAST).log()
    label = truth[lung].unsqueeze(1)

    def cost(log_temperature: float) -> float:
        scaled = (log_p / 2.0**log_temperature).log_softmax(1)
        return -float(scaled.gather(1, label).mean())

    least, largest = (torch.tensor(t).log2().item() for t in TEMPERATURES)
    minimum = minimize_scalar(cost, bounds=(least, largest), method="bounded")
    return float(2.0**minimum.x)


def _by_bin(p: Tensor, values: Tensor) -> Tensor:
    """Sum ``values`` over the pixels in each bin of ``p``."""
    bins = (p * BINS).long().clamp_max(BINS - 1)
    return torch.zeros(BINS, dtype=p.dtype, device=p.device).index_add(0, bins, values)
