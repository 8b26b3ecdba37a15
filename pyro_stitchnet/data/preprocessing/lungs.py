"""Where the lungs are in a scan, dense lesions included."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull

from pyro_stitchnet.data.preprocessing.morphology import closed, opened

__all__ = ["LUNG_SEGMENTERS", "LungSegmenter", "classical_lungs", "lungmask_lungs"]


class LungSegmenter(Protocol):
    """Finds the lungs in axial slices."""

    def __call__(
        self,
        slices: Sequence[np.ndarray] | np.ndarray,
        spacing: tuple[float, ...],
        *,
        hounsfield: bool,
    ) -> np.ndarray:
        """The lung field, bool (S, R, C); all False where there is no lung.

        Args:
            slices: (R, C) each, feet to head, front to back, right to left: Hounsfield units, or
                grey values in [0, 1] of a lung window, soft tissue in the brighter half. More
                than one slice must be neighbours in one scan.
            spacing: of slices, rows and columns, in mm; (1, 1, 1) where unknown.
            hounsfield: whether ``slices`` are in Hounsfield units.

        Raises:
            ValueError: ``slices`` or ``spacing`` have not three axes or no extent.
        """


# The constants of the classical method: densities as shares of the way from air (0) to soft tissue
# (1), lengths in mm.
_AIR_HU, _TISSUE_HU = -1000.0, 40.0
_LEAST_CONTRAST = 0.2  # between air and tissue in [0, 1]; less is no picture of a chest
_AERATED = 0.72  # below: lung, GGO and loose consolidation, at about -250 HU
_GAS = 0.08  # below, at about -920 HU: airways, stomach, bowel
_LARGEST_GAS = 2500.0  # mm² in one slice
_SMALLEST_PART = 60.0  # mm² in one slice
_SMALLEST_SHARE = (0.01, 0.10)  # of the largest part, in a single slice and in a volume
_PICTURE_WIDTH = 300.0  # mm, where the spacing is unknown: a chest
_BLUR, _DETACH, _VESSEL, _CRUMB = 0.7, 2.0, 5.0, 1.5  # mm
_LARGEST_HOLE = 1000.0  # mm² of tissue within the lung; the dome of the liver is larger
_DEEPEST = 60.0  # mm of consolidation below the chest's wall
_MIDDLE = 0.15  # of the lungs' width, to each side: spine and sternum
_DIRECTIONS, _AT_THE_WALL = 120, 0.02


def classical_lungs(
    slices: Sequence[np.ndarray] | np.ndarray, spacing: tuple[float, ...], *, hounsfield: bool
) -> np.ndarray:
    """Threshold, parts, and the chest's wall continued over what is too dense: no learning.

    Aerated lung is what is darker than soft tissue, not joined to the air at the picture's corners
    (the lungs may touch its borders), no airway or bowel gas, and large, in 3-D where there are
    neighbours. In each slice small holes, vessels and dense lesions on the chest's wall are then
    taken in. A lung that is dense throughout is not found, nor is dense lung without aerated lung
    between it and the middle of the chest.

    Slices in Hounsfield units are looked at one by one, so that they need not fit into memory.

    Args, result and errors are those of :class:`LungSegmenter`.
    """
    _check(slices, spacing)
    air, tissue = (_AIR_HU, _TISSUE_HU) if hounsfield else _levels(np.stack(list(slices)))
    if not hounsfield and tissue - air < _LEAST_CONTRAST:
        return np.zeros((len(slices), *slices[0].shape), bool)
    pixel = tuple(spacing[1:])
    if tuple(spacing) == (1, 1, 1):
        pixel = (_PICTURE_WIDTH / slices[0].shape[1],) * 2
    sigma = [_BLUR / side for side in pixel]

    def aerated(grey: np.ndarray) -> np.ndarray:
        density = ndimage.gaussian_filter(grey, sigma, output=np.float32, mode="nearest")
        density -= air
        density /= tissue - air
        return _aerated(density, pixel)

    field = np.empty((len(slices), *slices[0].shape), bool)
    for place, large in zip(field, _large(map(aerated, slices)), strict=True):
        place[:] = _with_lesions(large, pixel)
    return field


def _large(masks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The masks of neighbouring slices, bool (R, C), without their small parts in 3-D."""
    packed: list[np.ndarray] = []
    firsts, sizes, joined = [1], [np.zeros(1, int)], [np.zeros((2, 0), int)]
    below = np.zeros(0, int)  # the parts of the slice before, numbered from 1
    for mask in masks:
        packed.append(np.packbits(mask))
        parts, n = ndimage.label(mask)
        sizes.append(np.bincount(parts.ravel(), minlength=n + 1)[1:])
        if below.size:
            both = mask & (below > 0)
            met = np.bincount(below[both] * (n + 1) + parts[both])
            pair = np.stack(np.divmod(np.flatnonzero(met), n + 1)) - 1
            joined.append(pair + np.array([[firsts[-2]], [firsts[-1]]]))
        firsts.append(firsts[-1] + n)  # the parts of all slices have numbers of their own
        below = parts
    edges = np.concatenate(joined, 1)
    graph = coo_array((np.ones(edges.shape[1]), tuple(edges)), shape=(firsts[-1],) * 2)
    _, whole = connected_components(graph, directed=False)
    size = np.bincount(whole, weights=np.concatenate(sizes))[whole]
    keep = (size > 0) & (size >= _SMALLEST_SHARE[len(packed) > 1] * size.max())
    for bits, start in zip(packed, firsts, strict=False):
        mask = np.unpackbits(bits, count=below.size).astype(bool).reshape(below.shape)
        parts, n = ndimage.label(mask)
        yield np.concatenate([[False], keep[start : start + n]])[parts]


def lungmask_lungs(
    slices: Sequence[np.ndarray] | np.ndarray, spacing: tuple[float, ...], *, hounsfield: bool
) -> np.ndarray:
    """The U-Net R231CovidWeb of the optional package ``lungmask``.

    Pictures are taken to show the window -1250 to 250 HU. The first call downloads the weights.

    Source: Hofmanninger et al., European Radiology Experimental 4:50 (2020).

    Args, result and errors are those of :class:`LungSegmenter`.

    Raises:
        ValueError: also where lungmask is not installed or its weights cannot be had.
    """
    _check(slices, spacing)
    whole = np.asarray(slices) if isinstance(slices, np.ndarray) else np.stack(list(slices))
    units = whole if hounsfield else whole * 1500.0 - 1250.0
    # For arrays lungmask expects the axes and directions that slices have.
    return np.asarray(_lungmask().apply(np.asarray(units, np.float32))) > 0


LUNG_SEGMENTERS: Mapping[str, LungSegmenter] = {
    "classical": classical_lungs,
    "lungmask": lungmask_lungs,
}
"""Lung segmenters by name."""


@cache
def _lungmask() -> Any:
    try:
        with warnings.catch_warnings():  # lungmask turns off all user warnings when imported
            lungmask = import_module("lungmask")
        return lungmask.LMInferer(modelname="R231CovidWeb", tqdm_disable=True)
    except ImportError as error:
        raise ValueError(
            f"lungmask cannot be imported ({error}); install it with `pip install lungmask`, or "
            "choose the lung segmenter 'classical'"
        ) from error
    except OSError as error:
        raise ValueError(
            f"lungmask's weights cannot be had ({error}); they are downloaded once, so try again "
            "online, or choose the lung segmenter 'classical'"
        ) from error


def _check(slices: Sequence[np.ndarray] | np.ndarray, spacing: tuple[float, ...]) -> None:
    shape = (len(slices), *(slices[0].shape if len(slices) else ()))
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"slices must be (S, R, C), none of them 0, not {shape}")
    if len(spacing) != 3 or not all(side > 0 for side in spacing):
        raise ValueError(f"spacing must be three lengths in mm above 0, not {spacing}")


def _levels(slices: np.ndarray) -> tuple[float, float]:
    """Grey of air and soft tissue: nearly the darkest; the commonest of the brighter half."""
    counts, edges = np.histogram(slices, 32, (0.5, 1.0))
    brightest = counts.argmax()
    return float(np.percentile(slices, 0.5)), float(edges[brightest : brightest + 2].mean())


def _aerated(density: np.ndarray, pixel: tuple[float, ...]) -> np.ndarray:
    """Aerated tissue of one slice, (R, C): neither outside air nor airways nor crumbs."""
    parts, n = ndimage.label(density < _AERATED)
    inside = np.arange(n + 1) > 0
    inside[parts[[0, 0, -1, -1], [0, -1, 0, -1]]] = False
    aerated = inside[parts]
    # Airways and slivers part from the lung; the picture's border parts nothing.
    pad = _pad(_DETACH, pixel)
    apart = opened(np.pad(aerated, pad, mode="edge"), _DETACH, pixel)[pad:-pad, pad:-pad]
    parts, n = ndimage.label(apart & aerated)
    areas = np.bincount(parts.ravel(), minlength=n + 1) * np.prod(pixel)
    keep = areas > _SMALLEST_PART
    keep[0] = False
    doubtful = keep & (areas < _LARGEST_GAS)
    if doubtful.any():
        pixels, numbers = doubtful[parts], np.flatnonzero(doubtful)
        keep[numbers] = ndimage.median(density[pixels], parts[pixels], numbers) >= _GAS
    kept: np.ndarray = keep[parts]
    return kept


def _with_lesions(lung: np.ndarray, pixel: tuple[float, ...]) -> np.ndarray:
    """Aerated lung of one slice, (R, C), with its vessels, holes and dense lesions."""
    if not lung.any():
        return lung
    box = _reach(lung)
    part = _closing(lung[box], _VESSEL, pixel)
    dense = opened(_below_wall(part, pixel) & ~part, _CRUMB, pixel)
    part = _closing(part | dense, _CRUMB, pixel)
    gaps, n = ndimage.label(np.pad(~part, 1, constant_values=True))  # the first is all around
    small = np.bincount(gaps.ravel(), minlength=n + 1) * np.prod(pixel) < _LARGEST_HOLE
    small[:2] = False
    whole = np.zeros_like(lung)
    whole[box] = part | small[gaps[1:-1, 1:-1]]
    return whole


def _reach(lung: np.ndarray) -> tuple[slice, ...]:
    """The part of a slice that :func:`_with_lesions` may change.

    No wall is farther from the middle of the lungs' box, as a share of its sides, than its corners.
    """
    box = []
    for axis in (1, 0):
        hit = np.flatnonzero(lung.any(axis))
        middle, reach = (hit[0] + hit[-1]) / 2, (hit[-1] - hit[0] + 1) / np.sqrt(2) + 2
        box.append(slice(max(int(middle - reach), 0), int(middle + reach) + 1))
    return tuple(box)


def _below_wall(lung: np.ndarray, pixel: tuple[float, ...]) -> np.ndarray:
    """What lies between lung and the chest's wall, seen from the middle between the lungs.

    Where lung reaches its convex hull, that is the wall; elsewhere the wall runs on from there as
    an arc of the chest's ellipse, or along the hull where that is wider.
    """
    rows, columns = (np.flatnonzero(lung.any(axis)) for axis in (1, 0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    y, x = np.ogrid[: lung.shape[0], : lung.shape[1]]
    y, x = (y - (rows[0] + rows[-1]) / 2) / height, (x - (columns[0] + columns[-1]) / 2) / width
    y, x = y.astype(np.float32), x.astype(np.float32)  # half the time of float64
    radius = np.hypot(y, x)  # 1/2 on the ellipse that fills the lungs' box
    turn = np.floor(np.arctan2(y, x) * (_DIRECTIONS / (2 * math.pi))).astype(int)
    direction = np.where(turn < 0, turn + _DIRECTIONS, turn)

    first = np.full(_DIRECTIONS, np.inf, np.float32)
    last = np.full(_DIRECTIONS, -1, np.float32)  # no lung there
    hull = np.zeros(_DIRECTIONS, np.float32)
    np.minimum.at(first, direction[lung], radius[lung])
    np.maximum.at(last, direction[lung], radius[lung])
    inside = _hull(lung)
    np.maximum.at(hull, direction[inside], radius[inside])
    every = np.arange(_DIRECTIONS)
    known = (last >= 0) & (last > hull - _AT_THE_WALL)
    wall = np.maximum(hull, np.interp(every, every[known], last[known], period=_DIRECTIONS))
    wall = wall.astype(np.float32)
    deepest = np.maximum(first, wall - _DEEPEST / (width * pixel[1]))
    below = (radius > deepest[direction]) & (radius <= wall[direction]) & (np.abs(x) > _MIDDLE)
    return below


def _hull(lung: np.ndarray) -> np.ndarray:
    """The convex hull of a mask (R, C) that is not empty; pixels on its edges are in it."""
    rows = np.flatnonzero(lung.any(1))
    ends = [lung[rows].argmax(1), lung.shape[1] - 1 - lung[rows, ::-1].argmax(1)]
    # A little more on every side, for lungs in one line, and far less than any pixel outside is off
    corners = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)]) * 1e-4
    points = np.concatenate([np.stack([rows, end], 1) + c for end in ends for c in corners])
    down, right, offset = ConvexHull(points).equations.T  # <= 0 inside
    every = np.arange(rows[0], rows[-1] + 1)[:, None]
    with np.errstate(divide="ignore"):
        edge = -(down * every + offset) / right
    first = np.where(right < 0, edge, -np.inf).max(1, keepdims=True)
    last = np.where(right > 0, edge, np.inf).min(1, keepdims=True)
    columns = np.arange(lung.shape[1])
    hull = np.zeros_like(lung)
    hull[rows[0] : rows[-1] + 1] = (first <= columns) & (columns <= last)
    return hull


def _closing(mask: np.ndarray, radius: float, pixel: tuple[float, ...]) -> np.ndarray:
    """Of a picture with nothing around it."""
    pad = _pad(radius, pixel)
    return closed(np.pad(mask, pad), radius, pixel)[pad:-pad, pad:-pad]


def _pad(radius: float, pixel: tuple[float, ...]) -> int:
    """Pixels around a picture that keep its border out of what a radius in mm does."""
    return int(np.ceil(radius / min(pixel))) + 1
