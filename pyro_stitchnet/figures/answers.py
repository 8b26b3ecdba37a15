"""What a trained model answers: doubt, counterfactuals and draws, as pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pyro_stitchnet.figures.grids import grid, heat, overlays, stack

__all__ = ["counterfactuals", "drawn", "preprocessing", "uncertainties"]

LEAST_TOP = 1e-3  # of a scale: maps that are zero throughout stay black


def uncertainties(
    images: ArrayLike,
    predicted: ArrayLike,
    maps: Mapping[str, ArrayLike],
    truth: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draws segmentations, the doubt about them, and where they are wrong.

    Args:
        images: Slices of shape (N, H, W), in [0, 1].
        predicted: Their labels, of shape (N, H, W).
        maps: The title of each kind of doubt and its map, of shape (N, H, W), at least 0. Each has
            a scale of its own, from 0 to the 99.9th percentile, which its title tells.
        truth: The true labels, of shape (N, H, W), where they are known.
        names: One name a slice, written at its row.

    Returns:
        A row per slice: the slice, the segmentation, with a truth that and its errors in white,
        then each kind of doubt.

    Raises:
        ValueError: If the shapes differ, or there is not one name a slice.
    """
    slices = stack(images, "images")
    columns = {"slice": slices, "segmentation": overlays(slices, predicted, "predicted")}
    if truth is not None:
        columns["truth"] = overlays(slices, truth, "truth")
        columns["errors"] = (np.asarray(truth) != np.asarray(predicted)).astype(np.float64)
    for title, values in maps.items():
        doubt = stack(values, title, slices.shape)
        top = max(float(np.quantile(doubt, 0.999)), LEAST_TOP)
        columns[f"{title}\n0 to {top:.2g}"] = heat(doubt, top)
    return grid(columns, names)


def counterfactuals(
    images: ArrayLike,
    present: ArrayLike,
    changed: Mapping[str, ArrayLike],
    truth: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draws slices beside what they would be with other labels.

    Args:
        images: Slices of shape (N, H, W), in [0, 1].
        present: The labels that they were taken to have, of shape (N, H, W).
        changed: The title of each counterfactual and its pictures, of shape (N, H, W).
        truth: What the first of them ought to be, where that is known, of shape (N, H, W).
        names: One name a slice, written at its row.

    Returns:
        A row per slice: the slice, its labels, then each counterfactual, and the truth.

    Raises:
        ValueError: If the shapes differ, or there is not one name a slice.
    """
    slices = stack(images, "images")
    columns = {"slice": slices, "labels": overlays(slices, present, "present")}
    for title, pictures in changed.items():
        columns[title] = stack(pictures, title, slices.shape)
    if truth is not None:
        columns["truth"] = stack(truth, "truth", slices.shape)
    return grid(columns, names)


def drawn(
    pictures: Mapping[str, ArrayLike],
    labels: Mapping[str, ArrayLike] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draws pictures that the model made, column by column.

    Args:
        pictures: The title of each column and its pictures, of shape (N, H, W), in [0, 1].
        labels: By the same titles, labels to lay over them, of shape (N, H, W).
        names: One name a row.

    Returns:
        N rows.

    Raises:
        ValueError: If the shapes differ, or there is not one name a row.
    """
    columns = {}
    shape = None
    for title, values in pictures.items():
        maps = stack(values, title, shape)
        shape = maps.shape
        over = (labels or {}).get(title)
        columns[title] = maps if over is None else overlays(maps, over, f"labels of {title}")
    return grid(columns, names, legend=bool(labels))


def preprocessing(before: Sequence[ArrayLike], after: ArrayLike, names: Sequence[str]) -> Figure:
    """Draws slices before and after preprocessing, as Fig. 1 of the article.

    Args:
        before: The slices of the scans, each (R, C) of its own size, in any unit; each is drawn
            from its least value to its largest.
        after: What became of them, of shape (N, H, W), in [0, 1].
        names: One name a slice.

    Returns:
        A column per slice, above before, below after.

    Raises:
        ValueError: If there are not as many before as after, or there is not one name a slice.
    """
    prepared = stack(after, "after")
    if not len(before) == len(prepared) == len(names):
        raise ValueError(
            f"{len(before)} slices before, {len(prepared)} after and {len(names)} names; "
            "give one of each for every slice"
        )
    figure = Figure(figsize=(2.2 * len(prepared) + 0.3, 4.6), layout="constrained")
    axes = figure.subplots(2, len(prepared), squeeze=False)
    for column, (name, raw, ready) in enumerate(zip(names, before, prepared, strict=True)):
        axes[0, column].imshow(np.asarray(raw), cmap="gray")
        axes[1, column].imshow(ready, cmap="gray", vmin=0, vmax=1)
        axes[0, column].set_title(name, fontsize=9)
    for ax, title in zip(axes[:, 0], ("before", "after"), strict=True):
        ax.set_ylabel(title, fontsize=9)
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return figure
