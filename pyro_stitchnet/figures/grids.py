"""Grids of slices: segmentations (Fig. 2) and styles (Fig. 6b)."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from pyro_stitchnet.labels import COLOURS, LABELS

__all__ = [
    "NAMES",
    "grid",
    "heat",
    "image_columns",
    "overlay",
    "overlays",
    "segmentations",
    "sheet",
    "stack",
    "styles",
]

NAMES = ("background", "healthy", "GGO", "consolidation")
"""The labels as titles."""

CELL = 1.8  # inches, the width of one image in a grid


def overlay(image: ArrayLike, labels: ArrayLike, alpha: float = 0.5) -> NDArray[np.float64]:
    """Overlay a grey slice with the colours of GGO and consolidation.

    Args:
        image: Slice of shape (H, W), in [0, 1]; other values are clipped.
        labels: Integer labels of shape (H, W).
        alpha: The colours' opacity, in [0, 1].

    Returns:
        Red, green and blue in [0, 1], of shape (H, W, 3); grey where the label is background or
        healthy lung.

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
    """Draw the segmentations of several methods side by side, as Fig. 2 of the article.

    Args:
        images: Slices of shape (N, H, W), in [0, 1].
        truth: Their labels, of shape (N, H, W).
        predicted: The name of each method and its labels, of shape (N, H, W).
        names: One name per slice, drawn beside its row.

    Returns:
        A row per slice: the slice, the truth, then each method.

    Raises:
        ValueError: If the shapes differ, or the number of names is not that of the slices.
    """
    slices = stack(images, "images")
    columns: dict[str, NDArray[Any]] = {"slice": slices}
    for title, labels in {"truth": truth, **predicted}.items():
        columns[title] = overlays(slices, labels, title)
    return grid(columns, names)


def styles(
    images: ArrayLike,
    truth: ArrayLike | None,
    predicted: ArrayLike,
    styles: ArrayLike,
    stitched: ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw the styles of each slice, as Fig. 6b of the article.

    Args:
        images: Slices of shape (N, H, W), in [0, 1].
        truth: Their labels, of shape (N, H, W), or None for unlabelled slices.
        predicted: The model's labels, of shape (N, H, W).
        styles: Four styles per slice, of shape (N, 4, H, W), in [0, 1]: the slice as if all of it
            were background, healthy, GGO or consolidation.
        stitched: The reconstruction, of shape (N, H, W), in [0, 1]: at each pixel the mean of the
            style that its label picks. By default it is left out.
        names: One name per slice, drawn beside its row.

    Returns:
        A row per slice: the slice, the truth if given, the segmentation, the four styles, the
        stitched reconstruction if given.

    Raises:
        ValueError: If the shapes differ, or the number of names is not that of the slices.
    """
    slices = stack(images, "images")
    style_maps = np.asarray(styles, dtype=np.float64)
    expected = (len(slices), len(LABELS), *slices.shape[1:])
    if style_maps.shape != expected:
        raise ValueError(f"styles have shape {style_maps.shape}; these images need {expected}")
    columns: dict[str, NDArray[Any]] = {"slice": slices}
    if truth is not None:
        columns["truth"] = overlays(slices, truth, "truth")
    columns["segmentation"] = overlays(slices, predicted, "predicted")
    for k, name in enumerate(NAMES):
        columns[f"{name}\nstyle"] = style_maps[:, k]
    if stitched is not None:
        columns["stitched\nreconstruction"] = stack(stitched, "stitched", slices.shape)
    return grid(columns, names)


def image_columns(
    images: Mapping[str, ArrayLike],
    labels: Mapping[str, ArrayLike] | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw columns of images, some with overlaid labels.

    Args:
        images: The title of each column and its images, of shape (N, H, W), in [0, 1].
        labels: The title of a column and its labels, of shape (N, H, W).
        names: One name per row.

    Returns:
        N rows.

    Raises:
        ValueError: If the shapes differ, or the number of names is not that of the rows.
    """
    columns, shape = {}, None
    for title, values in images.items():
        maps = stack(values, title, shape)
        shape = maps.shape
        over = (labels or {}).get(title)
        columns[title] = maps if over is None else overlays(maps, over, f"labels of {title}")
    return grid(columns, names, legend=bool(labels))


def stack(values: ArrayLike, name: str, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Return an array of shape (N, H, W).

    Raises:
        ValueError: If it has another shape; the message contains ``name``.
    """
    array = np.asarray(values)
    if array.ndim != 3 or not array.size or array.shape != (shape or array.shape):
        expected = f"shape {shape}, as the images" if shape else "(slices, rows, columns)"
        raise ValueError(f"{name} has shape {array.shape}; give {expected}")
    return array


def overlays(slices: NDArray[Any], labels: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return the overlays of N slices, (N, H, W, 3)."""
    maps = stack(labels, name, slices.shape)
    return np.stack([overlay(image, label) for image, label in zip(slices, maps, strict=True)])


def heat(values: ArrayLike, top: float) -> NDArray[np.float64]:
    """Return maps as colours, from black (0) through violet and red to light yellow (``top``).

    Args:
        values: Any shape.
        top: Value of the brightest colour; larger values have that colour too.

    Returns:
        Red, green and blue in [0, 1], of shape (..., 3). Lightness rises evenly, so that the order
        is visible in grey and with any colour vision.
    """
    shares = np.clip(np.asarray(values, dtype=np.float64) / top, 0, 1)
    return np.asarray(colormaps["magma"](shares))[..., :3]


def grid(
    columns: Mapping[str, NDArray[Any]], names: Sequence[str] | None, *, legend: bool = True
) -> Figure:
    """Draw one row per slice, one column per title, and the legend of the labels below."""
    first = next(iter(columns.values()))
    rows, height, width = first.shape[:3]
    if names is not None and len(names) != rows:
        raise ValueError(f"{rows} slices but {len(names)} names; give one per slice")
    cell = CELL * height / width
    above = 0.15 * (1 + max(title.count("\n") for title in columns))
    size = (CELL * len(columns) + 0.3, cell * rows + above + 0.4)
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0, compress=True)
    figure = Figure(figsize=size, layout=tight)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=9, pad=4)
        for ax, image in zip(axes[:, column], images, strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    for ax, name in zip(axes[:, 0], names or (), strict=False):
        ax.set_ylabel(textwrap.fill(str(name), max(8, int(15 * cell))), fontsize=8)
    if legend:
        keys = [Patch(color=colour, label=NAMES[k]) for k, colour in COLOURS.items()]
        figure.legend(
            handles=keys, loc="outside lower center", ncols=len(keys), fontsize=9, frameon=False
        )
    return figure


def sheet(
    cells: Mapping[str, ArrayLike], title: str, lines: Sequence[str] = (), *, columns: int = 5
) -> Figure:
    """Draw titled images of one size row by row, with text and the legend of the labels.

    Args:
        cells: The title of each image and the image, (H, W) in [0, 1] or (H, W, 3).
        title: Of the figure.
        lines: Text below the images.
        columns: Images per row.

    Raises:
        ValueError: If there is no image.
    """
    if not cells:
        raise ValueError("no image to draw; give at least one")
    down = -(-len(cells) // columns)
    height, width = np.asarray(next(iter(cells.values()))).shape[:2]
    row = 1.25 * CELL * height / width + 0.4
    below = 0.2 * len(lines) + 0.3
    figure = Figure(figsize=(1.25 * CELL * columns, row * down + below + 0.4))
    whole = figure.get_figheight()
    axes = figure.subplots(down, columns, squeeze=False).ravel()
    figure.subplots_adjust(
        left=0.005, right=0.995, top=1 - 0.62 / whole, bottom=(below + 0.1) / whole,
        wspace=0.03, hspace=0.45 / row,
    )  # fmt: skip
    for ax, (name, image) in zip(axes, cells.items(), strict=False):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set_title(name, fontsize=8, pad=3)
    for ax in axes:
        ax.axis("off")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", y=1 - 0.1 / whole, va="top")
    figure.text(0.01, below / whole, "\n".join(lines), fontsize=8, va="top")
    keys = [Patch(color=colour, label=NAMES[k]) for k, colour in COLOURS.items()]
    figure.legend(
        handles=keys, loc="upper right", ncols=len(keys), fontsize=8, frameon=False,
        bbox_to_anchor=(1, 1), borderaxespad=0.2,
    )  # fmt: skip
    return figure
