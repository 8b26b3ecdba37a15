"""From a scan to square slices in [0, 1] of one size, and the way back to the scan's own grid.

The article's steps, each a function: :func:`window`, the lung field
(:mod:`pyro_stitchnet.data.preprocessing.lungs`), :func:`open_and_close`, then slice by slice :func:`crop`,
:func:`zero_outside`, :func:`pad_to_square` and :func:`resize`. :class:`Preprocessing` is their
composition with its numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from pyro_stitchnet.data.preprocessing.lungs import LUNG_SEGMENTERS
from pyro_stitchnet.data.preprocessing.morphology import closed, opened
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume, to_axial
from pyro_stitchnet.labels import ALL_LABELS, BACKGROUND

__all__ = [
    "Grid",
    "Preprocessing",
    "Slice",
    "crop",
    "full_scale",
    "open_and_close",
    "pad_to_square",
    "resize",
    "window",
    "zero_outside",
]

# The lung window of Ma et al. (2020, Zenodo 3757476), in HU.
WINDOW = (-1250.0, 250.0)


@dataclass(frozen=True)
class Grid:
    """Where a picture's pixels lie on the axial slice that it was made from.

    Pixel (r, c) covers the square of side ``pixel`` whose upper left corner is at
    (``top`` + r ``pixel``, ``left`` + c ``pixel``), in pixels of the slice.

    Attributes:
        rows: of the slice.
        columns: of the slice.
        top: upper edge of the picture, below 0 where it was padded.
        left: left edge of the picture.
        pixel: side of a pixel of the picture.
    """

    rows: int
    columns: int
    top: float = 0.0
    left: float = 0.0
    pixel: float = 1.0

    def back(self, picture: np.ndarray, *, outside: float = 0, order: int = 0) -> np.ndarray:
        """Put a picture of this grid back onto the slice.

        Args:
            picture: labels or probabilities (..., H, W) on this grid.
            outside: for pixels of the slice that the picture does not cover.
            order: 0 takes the nearest pixel (labels), 1 interpolates (probabilities).

        Returns:
            An array (..., rows, columns) of the picture's type: each pixel has what the picture
            says at its centre.
        """
        box, inside = self.covered(picture, order=order)
        whole = np.full((*picture.shape[:-2], self.rows, self.columns), outside, picture.dtype)
        whole[(..., *box)] = inside
        return whole

    def covered(
        self, picture: np.ndarray, *, order: int = 0
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """The part of the slice that a picture covers, and what :meth:`back` puts there.

        Arguments are those of :meth:`back`.
        """
        box = []
        for axis, first, length in ((-2, self.top, self.rows), (-1, self.left, self.columns)):
            places = (np.arange(length) + 0.5 - first) / self.pixel
            seen = np.flatnonzero((places >= 0) & (places < picture.shape[axis]))
            box.append(slice(seen[0], seen[-1] + 1) if len(seen) else slice(0))
            picture = _along(picture, axis, places[box[-1]], order)
        return (box[0], box[1]), picture


@dataclass(frozen=True)
class Slice:
    """One slice on its way.

    Attributes:
        image: grey values in [0, 1], float32 (H, W).
        label_sets: the labels that each pixel may have, a bit a label, uint8 (H, W).
        lung: the lung field, bool (H, W).
        grid: where the pixels lie on the scan's slice.
        index: number of the slice in the scan, from the feet.
    """

    image: np.ndarray
    label_sets: np.ndarray
    lung: np.ndarray
    grid: Grid
    index: int = 0


def window(voxels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Grey values from ``low`` to ``high`` become 0 to 1, float32; beyond, they are clipped."""
    scaled = (voxels.astype(np.float32) - low) / (high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def open_and_close(
    lung: np.ndarray, spacing: tuple[float, ...], opening: float, closing: float
) -> np.ndarray:
    """Morphological opening, then closing, of a lung field, slice by slice, with discs.

    Args:
        lung: bool (S, R, C).
        spacing: of slices, rows and columns.
        opening: radius, in the unit of ``spacing``; smaller specks vanish.
        closing: radius; smaller gaps are filled.
    """
    pixel = spacing[1:]
    return np.stack([closed(opened(mask, opening, pixel), closing, pixel) for mask in lung])


def crop(slice_: Slice, margin: int) -> Slice:
    """Cut to the box around the lung field and ``margin`` pixels more, within the picture."""
    rows, columns = (np.flatnonzero(slice_.lung.any(axis)) for axis in (1, 0))
    height, width = slice_.lung.shape
    top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
    bottom, right = min(rows[-1] + 1 + margin, height), min(columns[-1] + 1 + margin, width)
    box = np.s_[top:bottom, left:right]
    grid = slice_.grid
    return replace(
        slice_,
        image=slice_.image[box],
        label_sets=slice_.label_sets[box],
        lung=slice_.lung[box],
        grid=replace(
            grid,
            top=float(grid.top + top * grid.pixel),
            left=float(grid.left + left * grid.pixel),
        ),
    )


def zero_outside(slice_: Slice) -> Slice:
    """Black outside the lung field; labels stay as they are."""
    return replace(slice_, image=np.where(slice_.lung, slice_.image, np.float32(0)))


def pad_to_square(slice_: Slice) -> Slice:
    """Pad the shorter side on both ends, with black.

    It is labelled background, but in a slice without any label, which stays without.
    """
    unlabelled = (slice_.label_sets == ALL_LABELS).all()
    fill = ALL_LABELS if unlabelled else 1 << BACKGROUND
    side = max(slice_.image.shape)
    before = [(side - length) // 2 for length in slice_.image.shape]
    pads = [(b, side - n - b) for b, n in zip(before, slice_.image.shape, strict=True)]
    grid = slice_.grid
    return replace(
        slice_,
        image=np.pad(slice_.image, pads),
        label_sets=np.pad(slice_.label_sets, pads, constant_values=fill),
        lung=np.pad(slice_.lung, pads),
        grid=replace(
            grid, top=grid.top - before[0] * grid.pixel, left=grid.left - before[1] * grid.pixel
        ),
    )


def resize(slice_: Slice, size: int) -> Slice:
    """A square picture to ``size`` x ``size``: anti-aliased grey values, nearest label sets."""
    side = slice_.image.shape[0]

    def to_size(array: np.ndarray, how: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(array).resize((size, size), how))

    return replace(
        slice_,
        image=to_size(slice_.image, Image.Resampling.BILINEAR).clip(0, 1),
        label_sets=to_size(slice_.label_sets, Image.Resampling.NEAREST),
        lung=to_size(slice_.lung.astype(np.uint8), Image.Resampling.NEAREST).astype(bool),
        grid=replace(slice_.grid, pixel=slice_.grid.pixel * side / size),
    )


@dataclass(frozen=True)
class Preprocessing:
    """The steps from a scan to slices, and their numbers.

    Lengths are mm where the scan has a spacing, else pixels.

    Attributes:
        size: rows and columns of a slice, a multiple of 32; the article's is 352.
        window: HU that become 0 and 1. Of grey values that are no HU, 0 is black and the first of
            1, 255 and 65535 that none exceeds is white; with values below 0, the least and the
            largest.
        lungs: who finds the lung field: "classical", "lungmask" (the package of that name), or
            "none": the whole picture, for slices cropped to the lungs already.
        opening: radius that smooths the lung field.
        closing: radius that smooths the lung field.
        margin: kept around the lung field.
        zero_outside: black outside the lung field, as in the article.
        least_lung: slices whose lung field covers a smaller share are left out.
    """

    size: int = 352
    window: tuple[float, float] = WINDOW
    lungs: str = "classical"
    opening: float = 2.0
    closing: float = 4.0
    margin: float = 5.0
    zero_outside: bool = False
    least_lung: float = 0.01

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        if self.size < 32 or self.size % 32:
            raise ValueError(f"size {self.size} is not a positive multiple of 32")
        if not self.window[0] < self.window[1]:
            raise ValueError(f"window {self.window}: the first value must be below the second")
        if self.lungs not in ("none", *LUNG_SEGMENTERS):
            raise ValueError(
                f"lungs {self.lungs!r} is unknown; choose one of none, {', '.join(LUNG_SEGMENTERS)}"
            )
        for name in ("opening", "closing", "margin", "least_lung"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def __call__(
        self, volume: Volume, label_sets: np.ndarray, *, stacked: bool = True
    ) -> Iterator[Slice]:
        """Prepare the slices of a scan, from the feet, those with too little lung left out.

        Args:
            volume: the scan.
            label_sets: the labels that each voxel may have, a bit a label, uint8 (I, J, K), on the
                scan's grid.
            stacked: whether neighbouring slices are neighbours in the patient.

        Raises:
            ValueError: a voxel is not finite, or all are alike.
        """
        sets = to_axial(label_sets, volume.affine)
        return self.pictures(Stack.of(volume), sets, stacked=stacked)

    def pictures(
        self,
        stack: Stack,
        label_sets: Sequence[np.ndarray] | np.ndarray,
        *,
        stacked: bool = True,
    ) -> Iterator[Slice]:
        """The same, with one slice after the other in memory.

        Args:
            stack: the scan's axial slices.
            label_sets: the labels that each pixel may have, uint8 (R, C) for each slice.
            stacked: as for :meth:`__call__`.

        Raises:
            ValueError: all voxels are alike.
        """
        if stack.range[0] == stack.range[1]:
            raise ValueError(f"{stack.source}: all its voxels are {stack.range[0]}; drop it")
        limits = self.limits(stack)
        fields = self._lung_fields(stack, limits, stacked)
        for index, lung in enumerate(fields):
            if lung.mean() <= self.least_lung:
                continue
            grey = window(stack.slices[index], *limits)
            picture = Slice(grey, label_sets[index], lung, Grid(*grey.shape), index)
            picture = crop(picture, round(self.margin / stack.spacing[1]))
            if self.zero_outside:
                picture = zero_outside(picture)
            yield resize(pad_to_square(picture), self.size)

    def limits(self, stack: Stack) -> tuple[float, float]:
        """The grey values of a scan that become 0 and 1."""
        return self.window if stack.hounsfield else full_scale(*stack.range)

    def _lung_fields(
        self, stack: Stack, limits: tuple[float, float], stacked: bool
    ) -> Iterator[np.ndarray]:
        """The smoothed lung field of each slice, bool (R, C)."""
        if self.lungs == "none":
            for one in stack.slices:
                yield np.ones(one.shape, bool)
            return
        seen: Sequence[np.ndarray] | np.ndarray = stack.slices
        if not stack.hounsfield:
            seen = np.stack([window(one, *limits) for one in stack.slices])
        segmenter = LUNG_SEGMENTERS[self.lungs]
        parts = [seen] if stacked else [one[None] for one in seen]
        for part in parts:
            for lung in segmenter(part, stack.spacing, hounsfield=stack.hounsfield):
                yield open_and_close(lung[None], stack.spacing, self.opening, self.closing)[0]


def full_scale(least: float, largest: float) -> tuple[float, float]:
    """Black and white of grey values that are no HU."""
    if least < 0:
        return least, largest
    return 0.0, next((white for white in (1.0, 255.0, 65535.0) if largest <= white), largest)


def _along(picture: np.ndarray, axis: int, places: np.ndarray, order: int) -> np.ndarray:
    """The picture at places along an axis, in pixels from its edge; see :meth:`Grid.back`."""
    last = picture.shape[axis] - 1
    if order == 0:
        return picture.take(np.floor(places).astype(int), axis)
    between = (places - 0.5).clip(0, last)
    lower = np.floor(between).astype(int)
    weight = (between - lower).astype(picture.dtype)
    weight = weight[:, None] if axis == -2 else weight
    below = picture.take(lower, axis)
    above = picture.take(np.minimum(lower + 1, last), axis)
    return below + weight * (above - below)
