"""Curves of a training run, and of methods against the number of labelled slices."""

import math
import re
from itertools import cycle, product

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["LINES", "label_efficiency", "training_curves"]

# Okabe and Ito's palette without its yellow, which is too faint on white.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of lines, distinguishable with any colour vision (Okabe & Ito 2008)."""

STYLES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))  # one per cycle of the colours

PANELS = {  # group of columns: title, unit of the vertical axis
    "loss": ("loss", ""),
    "elbo": ("terms of the bound", "nats per pixel"),
    "kl": ("KL divergence of each level", "nats per pixel"),
    "style_gap": ("gap between styles", "mean |difference|, grey units"),
    "unlabelled_style_gap": (
        "gap between styles of unlabelled slices",
        "mean |difference|, grey units",
    ),
    "share": ("mean p(y | z)", "probability"),
    "unlabelled_share": ("mean p(y | z) of unlabelled slices", "probability"),
    "labelled": ("labelled pixels", "share of each label"),
    "predicted": ("predicted share on labelled pixels", "share of each label"),
    "label_drop": ("fall of log p(x) under a wrong label", "nats per labelled pixel"),
    "validation": ("validation", ""),
}
WORDS = {"log_px": "log p(x)", "log_py": "log p(y)", "kl": "KL", "ggo": "GGO", "dice": "Dice"}


def training_curves(log: pd.DataFrame) -> Figure:
    """Draw a training log: one panel per group of columns, one curve per column.

    A curve of more than a hundred points is drawn faint, with its running mean over it.

    Args:
        log: A column ``step``, and curves named "group/name" (``kl/z1``, ``validation/dice_ggo``)
            or by their group alone (``label_drop``). Groups that are not in `PANELS` get a panel
            under their own name; other columns without a "/" are left out. NaN marks steps without
            a value.

    Returns:
        A panel for each group with a value; the KL axis is logarithmic.

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
    # The legend is between title and axes, where it covers no curve.
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
    """Return the name of a curve for readers: "Dice GGO" for "dice_ggo"."""
    if name in WORDS:
        return WORDS[name]
    return re.sub("[a-z]+", lambda word: WORDS.get(word[0], word[0]), name.replace("_", " "))


def label_efficiency(points: pd.DataFrame) -> Figure:
    """Draw lesion Dice against the number of labelled slices, one curve per method.

    Args:
        points: Columns ``line`` (the method), ``labels``, ``dice``, ``low`` and ``high`` (the ends
            of its interval).

    Returns:
        One panel; a budget of -1 (all labels) is at the right.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    ax = figure.subplots()
    budgets = sorted(points["labels"].unique(), key=lambda n: (n < 0, n))
    positions = {budget: position for position, budget in enumerate(budgets)}
    lines = list(points.groupby("line", sort=False))
    for number, ((line, part), ((marker, dashes), colour)) in enumerate(
        zip(lines, cycle(product(STYLES, LINES)), strict=False)
    ):
        part = part.sort_values("labels", key=lambda n: n.map(positions))
        shift = 0.3 * (number / max(len(lines) - 1, 1) - 0.5)  # separates the intervals
        x = part["labels"].map(positions) + shift
        error = [part["dice"] - part["low"], part["high"] - part["dice"]]
        ax.errorbar(
            x, part["dice"], error, color=colour, label=line, marker=marker, linestyle=dashes,
            capsize=2, lw=1.2,
        )  # fmt: skip
    ax.set_xticks(range(len(budgets)), ["all" if b < 0 else str(b) for b in budgets])
    ax.set(xlabel="labelled slices", ylabel="mean Dice of GGO and consolidation, by patient")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure
