"""Figures of calibration: reliability, selective segmentation, grey values."""

from collections.abc import Mapping
from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_stitchnet.figures.curves import LINES
from pyro_stitchnet.figures.grids import NAMES
from pyro_stitchnet.labels import LABELS

__all__ = ["grey_histograms", "reliability", "selective"]

TITLES = dict(zip(LABELS, NAMES, strict=True))


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the frequency of each lesion against its predicted probability.

    Args:
        tables: The name of each line and the result of
            :func:`~pyro_stitchnet.metrics.calibration.reliability`.

    Returns:
        A panel per lesion; the area of a point grows with its share of the pixels, the diagonal is
        perfect calibration.

    Raises:
        ValueError: If there is no table.
    """
    _check(tables)
    lesions = list(dict.fromkeys(name for t in tables.values() for name in t["lesion"]))
    figure = Figure(figsize=(4 * len(lesions), 4), layout="constrained")
    axes = figure.subplots(1, len(lesions), squeeze=False)[0]
    for ax, lesion in zip(axes, lesions, strict=True):
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        for (name, table), colour in zip(tables.items(), cycle(LINES), strict=False):
            part = table[(table["lesion"] == lesion) & (table["pixels"] > 0)]
            x, y = part["probability"], part["frequency"]
            ax.plot(x, y, color=colour, linewidth=1.2, label=name)
            share = part["pixels"] / part["pixels"].sum()
            ax.scatter(x, y, s=8 + 150 * share**0.5, color=colour, alpha=0.6)
        ax.set_title(lesion, fontsize=10)
        ax.set(xlabel="probability", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        _format(ax)
    axes[0].set_ylabel("frequency")
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")
    return figure


def selective(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw Dice of the infection against coverage, the share of pixels that are kept.

    Args:
        tables: The name of each line and the result of
            :func:`~pyro_stitchnet.metrics.selection.selective`.

    Raises:
        ValueError: If there is no table.
    """
    _check(tables)
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    ax = figure.subplots()
    for (name, table), colour in zip(tables.items(), cycle(LINES), strict=False):
        ax.plot(table["coverage"], table["dice"], color=colour, marker=".", label=name)
    ax.set(xlabel="coverage, most certain pixels first", ylabel="Dice of the infection")
    ax.invert_xaxis()
    _format(ax)
    ax.legend(fontsize=8, frameon=False)
    return figure


def grey_histograms(table: pd.DataFrame) -> Figure:
    """Draw a posterior predictive check: observed and sampled grey values of each label.

    Args:
        table: The result of :func:`~pyro_stitchnet.posterior.grey_check`.

    Returns:
        A panel per label: the observed histogram as a line, the model's as a 95 % band.
    """
    groups = list(table.groupby("label", sort=False))
    figure = Figure(figsize=(3.2 * len(groups), 2.8), layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False, sharex=True)[0]
    for ax, (label, part) in zip(axes, groups, strict=True):
        band = {"color": LINES[0], "alpha": 0.35, "linewidth": 0}
        ax.fill_between(part["grey"], part["low"], part["high"], label="95 % of samples", **band)
        ax.plot(part["grey"], part["drawn"], color=LINES[0], linewidth=1, label="sampled")
        ax.plot(part["grey"], part["observed"], color="black", linewidth=1.2, label="observed")
        ax.set_title(TITLES.get(label, label), fontsize=10)
        ax.set(xlabel="grey value", xlim=(0, 1))
        ax.set_ylim(bottom=0)
        _format(ax)
    axes[0].set_ylabel("share of the label's pixels")
    axes[-1].legend(fontsize=8, frameon=False)
    return figure


def _check(tables: Mapping[str, pd.DataFrame]) -> None:
    if not tables:
        raise ValueError("no table to draw; give at least one")


def _format(ax: Axes) -> None:
    ax.grid(alpha=0.25)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
