"""Slices before and after preprocessing (Fig. 1)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from pyro_stitchnet.figures.grids import stack

__all__ = ["preprocessing"]


def preprocessing(before: Sequence[ArrayLike], after: ArrayLike, names: Sequence[str]) -> Figure:
    """Draw slices before and after preprocessing, as Fig. 1 of the article.

    Args:
        before: Slices of scans, each (R, C) of its own size, in any unit; black is the smallest
            value, white the largest.
        after: The preprocessed slices, of shape (N, H, W), in [0, 1].
        names: One name per slice.

    Returns:
        A column per slice: before above, after below.

    Raises:
        ValueError: If the numbers of slices before and after and of names differ.
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
