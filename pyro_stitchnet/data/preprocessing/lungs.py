"""The lung field of a scan, dense lesions included."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull

from pyro_stitchnet.data.preprocessing.morphology import closed, opened
from pyro_stitchnet.data.scans.volume import SPACING

__all__ = ["LUNG_METHODS", "LungSegmenter", "classical_lungs", "convex_hull", "lungmask_lungs"]


class LungSegmenter(Protocol):
    """A function that finds the lungs in axial slices."""

    def __call__(
        self,
        slices: Sequence[np.ndarray] | np.ndarray,
        spacing: tuple[float, ...],
        *,
        hounsfield: bool,
    ) -> np.ndarray:
        """Return the lung field, bool (S, R, C); all False where there is no lung.

        Args:
            slices: neighbouring slices of one scan, (R, C) each, feet to head, front to back, right
                to left: Hounsfield units, or grey values in [0, 1] of a lung window, with soft
                tissue in the brighter half.
            spacing: of slices, rows and columns, in mm; (1, 1, 1) where unknown.
            hounsfield: whether ``slices`` are in Hounsfield units.

        Raises:
            ValueError: ``slices`` do not have three axes, or an axis is empty; or ``spacing`` is
                not three lengths that a scan may have.
        """


# Parameters of the classical method: densities on a scale from air (0) to soft tissue (1), lengths
# in mm.
_AIR_HU, _TISSUE_HU = -1000.0, 40.0
_LEAST_CONTRAST = 0.2  # between air and tissue in [0, 1]; an image with less shows no chest
_AERATED = 0.72  # about -250 HU; below: lung, GGO and loose consolidation
_GAS = 0.08  # about -920 HU; below: airways, stomach, bowel
_LARGEST_GAS = 2500.0  # mm² in one slice
_SMALLEST_PART = 60.0  # mm² in one slice
_SMALLEST_SHARE = (0.01, 0.10)  # of the largest part, in a single slice and in a volume
_IMAGE_WIDTH = 300.0  # mm, assumed where the spacing is unknown
_GRID = 1.45  # mm; finer pixels are averaged to at most this, and the edge is interpolated
_BLUR, _DETACH, _VESSEL, _CRUMB = 0.7, 2.0, 5.0, 1.5  # mm
_LARGEST_HOLE = 1000.0  # mm² of tissue within the lung; the dome of the liver is larger
_DEEPEST = 60.0  # mm of consolidation below the chest wall
_MIDDLE = 0.15  # share of the lungs' width, to each side: spine and sternum
_DIRECTIONS, _AT_THE_WALL = 120, 0.02


def classical_lungs(
    slices: Sequence[np.ndarray] | np.ndarray, spacing: tuple[float, ...], *, hounsfield: bool
) -> np.ndarray:
    """Find the lungs by thresholds, connected parts and the shape of the chest wall.

    Aerated lung is darker than soft tissue, not connected to the air at the image's corners (the
    lungs may touch its borders), neither airway nor bowel gas, and large, in 3-D where there are
    neighbouring slices. Small holes, vessels and dense lesions at the chest wall are then added in
    each slice. The method misses a lung that is dense throughout, and dense lung without aerated
    lung between it and the middle of the chest.

    Slices in Hounsfield units are processed one by one and need not fit into memory.

    Arguments, result and errors are those of :class:`LungSegmenter`.
    """
    _check(slices, spacing)
    air, tissue = (_AIR_HU, _TISSUE_HU) if hounsfield else _levels(np.stack(list(slices)))
    if not hounsfield and tissue - air < _LEAST_CONTRAST:
        return np.zeros((len(slices), *slices[0].shape), bool)
    pixel = tuple(spacing[1:])
    if tuple(spacing) == (1, 1, 1):
        pixel = (_IMAGE_WIDTH / slices[0].shape[1],) * 2
    factor = max(int(_GRID / max(pixel)), 1)
    pixel = tuple(factor * side for side in pixel)
    sigma = [_BLUR / side for side in pixel]

    def aerated(grey: np.ndarray) -> np.ndarray:
        density = ndimage.gaussian_filter(_shrunk(grey, factor), sigma, mode="nearest")
        density -= air
        density /= tissue - air
        return _aerated(density, pixel)

    field = np.empty((len(slices), *slices[0].shape), bool)
    for place, large in zip(field, _large(map(aerated, slices)), strict=True):
        place[:] = _enlarged(_with_lesions(large, pixel), factor, place.shape)
    return field


def _shrunk(grey: np.ndarray, factor: int) -> np.ndarray:
    """Average ``factor`` x ``factor`` pixels, fewer at the right and lower border; float32."""
    return np.asarray(Image.fromarray(grey.astype(np.float32, copy=False)).reduce(factor))


def _enlarged(mask: np.ndarray, factor: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask of :func:`_shrunk` on the slice's grid, its edge linearly interpolated."""
    rows, columns = shape
    box = (0, 0, columns / factor, rows / factor)
    image = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR, box)) > 127


def _large(masks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the masks of neighbouring slices, bool (R, C), without parts that are small in 3-D."""
    labelled: list[np.ndarray] = []
    firsts, sizes, joined = [1], [np.zeros(1, int)], [np.zeros((2, 0), int)]
    for mask in masks:
        parts, n = ndimage.label(mask)
        sizes.append(np.bincount(parts.ravel(), minlength=n + 1)[1:])
        if labelled:
            below = labelled[-1]
            both = mask & (below > 0)
            met = np.bincount(below[both].astype(int) * (n + 1) + parts[both])
            pair = np.stack(np.divmod(np.flatnonzero(met), n + 1)) - 1
            joined.append(pair + np.array([[firsts[-2]], [firsts[-1]]]))
        firsts.append(firsts[-1] + n)  # part numbers are unique over all slices
        labelled.append(parts.astype(np.min_scalar_type(n)))
    edges = np.concatenate(joined, 1)
    graph = coo_array((np.ones(edges.shape[1]), tuple(edges)), shape=(firsts[-1],) * 2)
    _, whole = connected_components(graph, directed=False)
    size = np.bincount(whole, weights=np.concatenate(sizes))[whole]
    keep = (size > 0) & (size >= _SMALLEST_SHARE[len(labelled) > 1] * size.max())
    for parts, start, end in zip(labelled, firsts, firsts[1:], strict=False):
        yield np.concatenate([[False], keep[start:end]])[parts]


def lungmask_lungs(
    slices: Sequence[np.ndarray] | np.ndarray, spacing: tuple[float, ...], *, hounsfield: bool
) -> np.ndarray:
    """Find the lungs with the U-Net R231CovidWeb of the optional package ``lungmask``.

    Grey values in other units are taken to show the window -1250 to 250 HU. The first
    call downloads the weights.

    Source: Hofmanninger et al., European Radiology Experimental 4:50 (2020).

    Arguments, result and errors are those of :class:`LungSegmenter`.

    Raises:
        ValueError: also if lungmask is not installed or its weights cannot be loaded.
    """
    _check(slices, spacing)
    whole = np.asarray(slices) if isinstance(slices, np.ndarray) else np.stack(list(slices))
    units = whole if hounsfield else whole * 1500.0 - 1250.0
    # lungmask expects arrays with the axes and directions that slices have here.
    return np.asarray(_lungmask().apply(np.asarray(units, np.float32))) > 0


LUNG_METHODS: Mapping[str, LungSegmenter] = {
    "classical": classical_lungs,
    "lungmask": lungmask_lungs,
}
"""The lung methods by name."""


@cache
def _lungmask() -> Any:
    try:
        with warnings.catch_warnings():  # lungmask turns off all user warnings when imported
            lungmask = import_module("lungmask")
        return lungmask.LMInferer(modelname="R231CovidWeb", tqdm_disable=True)
    except ImportError as error:
        raise ValueError(
            f"lungmask cannot be imported ({error}); install it with `pip install lungmask`, or "
            "choose the lung method 'classical'"
        ) from error
    except OSError as error:
        raise ValueError(
            f"lungmask's weights cannot be loaded ({error}); they are downloaded once: try again "
            "online, or choose the lung method 'classical'"
        ) from error


def _check(slices: Sequence[np.ndarray] | np.ndarray, spacing: tuple[float, ...]) -> None:
    shape = (len(slices), *(slices[0].shape if len(slices) else ()))
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"slices must be (S, R, C), none of them 0, not {shape}")
    # Morphology of a radius in mm would take forever on smaller pixels.
    if len(spacing) != 3 or not all(SPACING[0] <= side <= SPACING[1] for side in spacing):
        raise ValueError(
            f"spacing must be three lengths of {SPACING[0]} to {SPACING[1]:.0f} mm, not {spacing}"
        )


def _levels(slices: np.ndarray) -> tuple[float, float]:
    """Return the grey values of air (nearly the darkest) and soft tissue (mode above 0.5)."""
    counts, edges = np.histogram(slices, 32, (0.5, 1.0))
    brightest = counts.argmax()
    return float(np.percentile(slices, 0.5)), float(edges[brightest : brightest + 2].mean())


def _aerated(density: np.ndarray, pixel: tuple[float, ...]) -> np.ndarray:
    """Find aerated lung in one slice, (R, C): no outside air, airways or small parts."""
    parts, n = ndimage.label(density < _AERATED)
    inside = np.arange(n + 1) > 0
    inside[parts[[0, 0, -1, -1], [0, -1, 0, -1]]] = False
    aerated = inside[parts]
    # Separates airways and slivers from the lung; padding keeps the image border out of it.
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
    """Add vessels, holes and dense lesions to the aerated lung of one slice, (R, C)."""
    if not lung.any():
        return lung
    box = _reach(lung)
    part = _closing(lung[box], _VESSEL, pixel)
    dense = opened(_below_wall(part, pixel) & ~part, _CRUMB, pixel)
    part = _closing(part | dense, _CRUMB, pixel)
    gaps, n = ndimage.label(np.pad(~part, 1, constant_values=True))  # gap 1 is the outside
    small = np.bincount(gaps.ravel(), minlength=n + 1) * np.prod(pixel) < _LARGEST_HOLE
    small[:2] = False
    whole = np.zeros_like(lung)
    whole[box] = part | small[gaps[1:-1, 1:-1]]
    return whole


def _reach(lung: np.ndarray) -> tuple[slice, ...]:
    """Return the part of a slice that :func:`_with_lesions` may change.

    Relative to the box around the lungs, no point of the chest wall lies farther from the box's
    middle than its corners.
    """
    box = []
    for axis in (1, 0):
        hit = np.flatnonzero(lung.any(axis))
        middle, reach = (hit[0] + hit[-1]) / 2, (hit[-1] - hit[0] + 1) / np.sqrt(2) + 2
        box.append(slice(max(int(middle - reach), 0), int(middle + reach) + 1))
    return tuple(box)


def _below_wall(lung: np.ndarray, pixel: tuple[float, ...]) -> np.ndarray:
    """Return the pixels between lung and chest wall, along rays from the middle of the lungs.

    Where lung reaches its convex hull, the hull is the wall. Elsewhere the wall continues as an arc
    of the chest's ellipse, or along the hull where that lies farther out.
    """
    rows, columns = (np.flatnonzero(lung.any(axis)) for axis in (1, 0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    y, x = np.ogrid[: lung.shape[0], : lung.shape[1]]
    y, x = (y - (rows[0] + rows[-1]) / 2) / height, (x - (columns[0] + columns[-1]) / 2) / width
    y, x = y.astype(np.float32), x.astype(np.float32)  # twice as fast as float64
    radius = np.hypot(y, x)  # 1/2 on the ellipse inscribed in the lungs' box
    turn = np.floor(np.arctan2(y, x) * (_DIRECTIONS / (2 * math.pi))).astype(int)
    direction = np.where(turn < 0, turn + _DIRECTIONS, turn)

    first = np.full(_DIRECTIONS, np.inf, np.float32)
    last = np.full(_DIRECTIONS, -1, np.float32)  # -1: no lung in that direction
    hull = np.zeros(_DIRECTIONS, np.float32)
    np.minimum.at(first, direction[lung], radius[lung])
    np.maximum.at(last, direction[lung], radius[lung])
    inside = convex_hull(lung)
    np.maximum.at(hull, direction[inside], radius[inside])
    every = np.arange(_DIRECTIONS)
    at_wall = (last >= 0) & (last > hull - _AT_THE_WALL)
    wall = np.maximum(hull, np.interp(every, every[at_wall], last[at_wall], period=_DIRECTIONS))
    wall = wall.astype(np.float32)
    deepest = np.maximum(first, wall - _DEEPEST / (width * pixel[1]))
    below = (radius > deepest[direction]) & (radius <= wall[direction]) & (np.abs(x) > _MIDDLE)
    return below


def convex_hull(lung: np.ndarray) -> np.ndarray:
    """Return the convex hull of a non-empty mask (R, C), its edges included."""
    rows = np.flatnonzero(lung.any(1))
    ends = [lung[rows].argmax(1), lung.shape[1] - 1 - lung[rows, ::-1].argmax(1)]
    # A margin on every side, since the hull of collinear points is undefined; far smaller than the
    # distance of any pixel outside.
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
    """Close a mask whose surroundings are empty."""
    pad = _pad(radius, pixel)
    return closed(np.pad(mask, pad), radius, pixel)[pad:-pad, pad:-pad]


def _pad(radius: float, pixel: tuple[float, ...]) -> int:
    """Return the padding in pixels that keeps morphology of a radius in mm off the border."""
    return int(np.ceil(radius / min(pixel))) + 1
