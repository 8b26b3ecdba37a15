"""Figures of the posterior: uncertainty maps and counterfactuals."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pyro_stitchnet.figures.grids import grid, heat, overlays, stack

__all__ = ["counterfactuals", "uncertainties"]

LEAST_TOP = 1e-3  # smallest top of a scale, so that maps of zeros are black


def uncertainties(
    images: ArrayLike,
    predicted: ArrayLike,
    maps: Mapping[str, ArrayLike],
    truth: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw segmentations, their uncertainty, and their errors.

    Args:
        images: Slices of shape (N, H, W), in [0, 1].
        predicted: Predicted labels, of shape (N, H, W).
        maps: The title of each kind of uncertainty and its maps, of shape (N, H, W), at least 0.
            Each has its own scale, from 0 to the 99.9th percentile, which the title contains.
        truth: True labels, of shape (N, H, W), if known.
        names: One name per slice, drawn beside its row.

    Returns:
        A row per slice: the slice, the segmentation; with a truth, that and the errors in white;
        then each kind of uncertainty.

    Raises:
        ValueError: If the shapes differ, or the number of names is not that of the slices.
    """
    slices = stack(images, "images")
    columns = {"slice": slices, "segmentation": overlays(slices, predicted, "predicted")}
    if truth is not None:
        columns["truth"] = overlays(slices, truth, "truth")
        columns["errors"] = (np.asarray(truth) != np.asarray(predicted)).astype(np.float64)
    for title, values in maps.items():
        uncertainty = stack(values, title, slices.shape)
        top = max(float(np.quantile(uncertainty, 0.999)), LEAST_TOP)
        columns[f"{title}\n0 to {top:.2g}"] = heat(uncertainty, top)
    return grid(columns, names)


def counterfactuals(
    images: ArrayLike,
    present: ArrayLike,
    changed: Mapping[str, ArrayLike],
    truth: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw slices beside the same slices with other labels.

    Args:
        images: Slices of shape (N, H, W), in [0, 1].
        present: Their present labels, of shape (N, H, W).
        changed: The title of each counterfactual and its slices, of shape (N, H, W).
        truth: True slices of the first counterfactual, of shape (N, H, W), if known.
        names: One name per slice, drawn beside its row.

    Returns:
        A row per slice: the slice, its labels, each counterfactual, the truth.

    Raises:
        ValueError: If the shapes differ, or the number of names is not that of the slices.
    """
    slices = stack(images, "images")
    columns = {"slice": slices, "labels": overlays(slices, present, "present")}
    for title, values in changed.items():
        columns[title] = stack(values, title, slices.shape)
    if truth is not None:
        columns["truth"] = stack(truth, "truth", slices.shape)
    return grid(columns, names)
