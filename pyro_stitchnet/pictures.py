"""Every figure: segmentations and styles side by side, and the curves of a training run.

Nothing here touches pyplot: every function returns a `matplotlib.figure.Figure`, which needs no
display and goes when its last reference does. `save_figure` writes one.
"""

import io
import math
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from pyro_stitchnet.files import write_atomically
from pyro_stitchnet.labels import CONSOLIDATION, GGO, LABELS

__all__ = [
    "COLOURS",
    "label_efficiency",
    "overlay",
    "save_figure",
    "segmentations",
    "styles",
    "training_curves",
]

# Chosen by search: half transparent over any grey, the two differ from each other and from every
# grey by at least 17 (CIEDE2000), with normal sight and with each of the three dichromacies.
COLOURS: Mapping[int, str] = {GGO: "#20E640", CONSOLIDATION: "#2050FF"}
"""The colour of each label that is drawn; background and healthy lung are left as they are."""

NAMES = ("background", "healthy", "GGO", "consolidation")  # LABELS, as a reader writes them
CELL = 1.8  # inches, the width of one picture in a grid

# Okabe and Ito's palette, but for its yellow, too faint for a line on white.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PANELS = {  # group of columns: title, unit of the vertical axis
    "loss": ("loss", ""),
    "elbo": ("terms of the bound", "nats per pixel"),
    "kl": ("KL divergence of each level", "nats per pixel"),
    "style_gap": ("gap between styles", "mean |difference|, grey units"),
    "share": ("share of each label", "fraction of pixels"),
    "label_drop": ("fall of log p(x) under a wrong label", "nats per labelled pixel"),
    "validation": ("validation", "Dice"),
}
WORDS = {"log_px": "log p(x)", "log_py": "log p(y)", "kl": "KL", "ggo": "GGO", "dice": "Dice"}


def overlay(image: ArrayLike, labels: ArrayLike, alpha: float = 0.5) -> NDArray[np.float64]:
    """Lays the colours of GGO and consolidation over a grey slice.

    Args:
        image: Slice of shape (H, W), in [0, 1]; values outside are clipped.
        labels: Integer labels of shape (H, W).
        alpha: The colours' opacity, in [0, 1].

    Returns:
        Red, green and blue in [0, 1], of shape (H, W, 3). Where the label is background or healthy
        lung the three are the slice's grey.

    Raises:
        ValueError: If the shapes are not the same (H, W), or alpha is outside [0, 1].
    """
    grey, label = np.asarray(image, dtype=np.float64), np.asarray(labels)
    if grey.ndim != 2 or label.shape != grey.shape:
        raise ValueError(f"image {grey.shape} and labels {label.shape} must both be (H, W)")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must lie in [0, 1]")
    colour = np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=-1)
    for k, name in COLOURS.items():
        where = label == k
        colour[where] = (1 - alpha) * colour[where] + alpha * np.array(to_rgb(name))
    return colour


def segmentations(
    images: ArrayLike,
    truth: ArrayLike,
    predicted: Mapping[str, ArrayLike],
    names: Sequence[str] | None = None,
) -> Figure:
    """Draws the segmentations of several methods side by side, as Fig. 2 of the article.

    Args:
        images: Slices of shape (N, H, W), in [0, 1].
        truth: Their labels, of shape (N, H, W).
        predicted: The name of each method and its labels, of shape (N, H, W).
        names: One name a slice, written at its row.

    Returns:
        A row per slice: the slice, the truth, then each method.

    Raises:
        ValueError: If the shapes differ, or there is not one name a slice.
    """
    slices = _stack(images, "images")
    columns: dict[str, NDArray[Any]] = {"slice": slices}
    for title, labels in {"truth": truth, **predicted}.items():
        columns[title] = _overlays(slices, labels, title)
    return _grid(columns, names)


def styles(
    images: ArrayLike,
    truth: ArrayLike | None,
    predicted: ArrayLike,
    styles: ArrayLike,
    stitched: ArrayLike,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draws what the model sees in each slice, as Fig. 6b of the article.

    Args:
        images: Slices of shape (N, H, W), in [0, 1].
        truth: Their labels, of shape (N, H, W), or None for unlabelled slices.
        predicted: The model's labels, of shape (N, H, W).
        styles: Four pictures a slice, of shape (N, 4, H, W), in [0, 1]: the slice as it would be if
            all of it were background, healthy, GGO, consolidation.
        stitched: The reconstruction, of shape (N, H, W), in [0, 1]: at each pixel the style that
            its label picks.
        names: One name a slice, written at its row.

    Returns:
        A row per slice: the slice, the truth if given, the segmentation, the four styles, the
        stitched reconstruction.

    Raises:
        ValueError: If the shapes differ, or there is not one name a slice.
    """
    slices = _stack(images, "images")
    each = np.asarray(styles, dtype=np.float64)
    expected = (len(slices), len(LABELS), *slices.shape[1:])
    if each.shape != expected:
        raise ValueError(f"styles have shape {each.shape}; these images need {expected}")
    columns: dict[str, NDArray[Any]] = {"slice": slices}
    if truth is not None:
        columns["truth"] = _overlays(slices, truth, "truth")
    columns["segmentation"] = _overlays(slices, predicted, "predicted")
    for k, name in enumerate(NAMES):
        columns[f"{name}\nstyle"] = each[:, k]
    columns["stitched\nreconstruction"] = _stack(stitched, "stitched", slices.shape)
    return _grid(columns, names)


def _stack(values: ArrayLike, what: str, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 3 or not array.size or array.shape != (shape or array.shape):
        expected = f"shape {shape}, as the images" if shape else "(slices, rows, columns)"
        raise ValueError(f"{what} has shape {array.shape}; give {expected}")
    return array


def _overlays(slices: NDArray[Any], labels: ArrayLike, what: str) -> NDArray[np.float64]:
    stack = _stack(labels, what, slices.shape)
    return np.stack([overlay(image, label) for image, label in zip(slices, stack, strict=True)])


def _grid(columns: Mapping[str, NDArray[Any]], names: Sequence[str] | None) -> Figure:
    """One row per slice, one column per title, the legend of the labels below."""
    first = next(iter(columns.values()))
    rows, height, width = first.shape
    if names is not None and len(names) != rows:
        raise ValueError(f"{rows} slices but {len(names)} names; give one a slice")
    cell = CELL * height / width
    above = 0.15 * (1 + max(title.count("\n") for title in columns))
    size = (CELL * len(columns) + 0.3, cell * rows + above + 0.4)
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0, compress=True)
    figure = Figure(figsize=size, layout=tight)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=9, pad=4)
        for ax, picture in zip(axes[:, column], pictures, strict=True):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    for ax, name in zip(axes[:, 0], names or (), strict=False):
        ax.set_ylabel(textwrap.fill(str(name), max(8, int(15 * cell))), fontsize=8)
    keys = [Patch(color=colour, label=NAMES[k]) for k, colour in COLOURS.items()]
    figure.legend(
        handles=keys, loc="outside lower center", ncols=len(keys), fontsize=9, frameon=False
    )
    return figure


def training_curves(log: pd.DataFrame) -> Figure:
    """Draws a training log: one panel per group of columns, one curve per column.

    A curve of more than a hundred points is drawn faint, with its running mean over it.

    Args:
        log: A column ``step``, and curves named "group/name" (``kl/z1``, ``validation/dice_ggo``)
            or by their group alone (``label_drop``). Groups other than those in `PANELS` get a
            panel under their own name; other columns without a "/" are left out. NaN where
            nothing was logged at a step.

    Returns:
        A panel for each group that has a value; the KL axis is logarithmic.

    Raises:
        ValueError: If ``step`` is missing or there is nothing to draw.
    """
    if "step" not in log:
        raise ValueError('the log has no column "step"')
    groups: dict[str, list[str]] = {group: [] for group in PANELS}
    for column in log.columns:
        group = column.partition("/")[0]
        if ("/" in column or column in PANELS) and log[column].notna().any():
            groups.setdefault(group, []).append(column)
    groups = {group: columns for group, columns in groups.items() if columns}
    if not groups:
        raise ValueError('the log has no curves: columns named "group/name" with a value')

    across = min(2, len(groups))
    down = math.ceil(len(groups) / across)
    figure = Figure(figsize=(5.5 * across, 2.6 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
    for ax, (group, columns) in zip(axes, groups.items(), strict=False):
        _panel(ax, group, log.set_index("step")[columns])
    for ax in axes[len(groups) :]:
        ax.remove()
    for ax in axes[max(0, len(groups) - across) : len(groups)]:
        ax.set_xlabel("step")
        ax.tick_params(labelbottom=True)
    return figure


def _panel(ax: Axes, group: str, curves: pd.DataFrame) -> None:
    title, unit = PANELS.get(group, (group.replace("_", " "), ""))
    labels = [_words(column.partition("/")[2]) for column in curves]
    for colour, label, column in zip(cycle(LINES), labels, curves, strict=False):
        curve = curves[column].dropna()
        window = len(curve) // 50
        if window >= 2:
            ax.plot(curve.index, curve, color=colour, alpha=0.25, linewidth=0.7)
            curve = curve.rolling(window, center=True, min_periods=1).mean()
        marker = "." if len(curve) <= 25 else ""
        ax.plot(curve.index, curve, color=colour, linewidth=1.4, marker=marker, label=label)
    if group == "kl" and (curves > 0).to_numpy().any():
        ax.set_yscale("log", nonpositive="mask")
    ax.set_ylabel(unit, fontsize=9)
    ax.tick_params(which="both", labelsize=8)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    # The legend lies between title and axes, in as many lines as it needs: it covers no curve.
    lines = math.ceil(sum(len(label) + 6 for label in labels) / 75) if any(labels) else 0
    ax.set_title(title, fontsize=10, loc="left", pad=5 + 13 * lines)
    if lines:
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=math.ceil(len(labels) / lines),
            fontsize=8,
            frameon=False,
            borderpad=0,
            borderaxespad=0.3,
            handlelength=1.2,
            columnspacing=1.2,
        )


def _words(name: str) -> str:
    """A curve's name as a reader writes it: "dice_ggo" is "Dice GGO"."""
    if name in WORDS:
        return WORDS[name]
    return re.sub("[a-z]+", lambda word: WORDS.get(word[0], word[0]), name.replace("_", " "))


def label_efficiency(points: pd.DataFrame) -> Figure:
    """Draws lesion Dice against the number of labelled slices, a curve a method.

    Args:
        points: Columns ``line`` (the method), ``labels``, ``dice``, ``low`` and ``high`` (the ends
            of its interval).

    Returns:
        One panel; a budget of -1 (all labels) is drawn rightmost.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    budgets = sorted(points["labels"].unique(), key=lambda n: (n < 0, n))
    places = {budget: place for place, budget in enumerate(budgets)}
    lines = list(points.groupby("line", sort=False))
    for number, ((line, part), colour) in enumerate(zip(lines, cycle(LINES), strict=False)):
        part = part.sort_values("labels", key=lambda n: n.map(places))
        shift = 0.3 * (number / max(len(lines) - 1, 1) - 0.5)  # so that intervals stay apart
        at = part["labels"].map(places) + shift
        error = [part["dice"] - part["low"], part["high"] - part["dice"]]
        ax.errorbar(
            at, part["dice"], error, color=colour, label=line, marker="o", capsize=2, lw=1.2
        )
    ax.set_xticks(range(len(budgets)), ["all" if b < 0 else str(b) for b in budgets])
    ax.set(xlabel="labelled slices", ylabel="mean Dice of GGO and consolidation, by patient")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG at 150 dots per inch, cut to its contents, whole or not at all.

    Args:
        figure: Any figure of this module.
        path: The file to write. Its directory must exist.

    Raises:
        FileNotFoundError: If the directory does not exist.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, bbox_inches="tight", pad_inches=0.05)
    write_atomically(path, picture.getvalue())
