"""From a scan to square slices in [0, 1] of one size, and back to the scan's own grid.

The article's steps are one function each: :func:`window`, the lung field
(:mod:`pyro_stitchnet.data.preprocessing.lungs`), :func:`open_and_close`, and for each slice
:func:`crop`, :func:`zero_outside`, :func:`pad_to_square` and :func:`resize`.
:class:`Preprocessing` composes them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from PIL import Image
from pydantic import ConfigDict

from pyro_stitchnet.data.preprocessing.fill import without_fill
from pyro_stitchnet.data.preprocessing.morphology import closed, opened
from pyro_stitchnet.labels import ALL_LABELS, BACKGROUND
from pyro_stitchnet.runtime.ranges import GreyValue, Millimetres, Share, Side, check_ranges

if TYPE_CHECKING:
    from pyro_stitchnet.data.scans.stack import Stack

__all__ = [
    "LUNG_WINDOW",
    "LungMethod",
    "Placement",
    "PreparedSlice",
    "Preprocessing",
    "crop",
    "open_and_close",
    "pad_to_square",
    "resize",
    "to_bytes",
    "window",
    "zero_outside",
]

LungMethod = Literal["classical", "lungmask", "none"]
"""The lung methods, see :class:`Preprocessing`."""

LUNG_WINDOW = (-1250.0, 250.0)
"""The lung window of Ma et al. (2020, Zenodo 3757476), in HU."""


@dataclass(frozen=True)
class Placement:
    """The place of a prepared image's pixels on the scan's axial slice.

    Pixel (r, c) of the image covers the square of side ``pixel`` whose upper left corner is at
    (``top`` + r ``pixel``, ``left`` + c ``pixel``), in pixels of the slice.

    Attributes:
        rows: of the slice.
        columns: of the slice.
        top: upper edge of the image; negative where it was padded.
        left: left edge of the image.
        pixel: side of a pixel of the image, in pixels of the slice.
    """

    rows: int
    columns: int
    top: float = 0.0
    left: float = 0.0
    pixel: float = 1.0

    def back(self, image: np.ndarray, *, outside: float = 0, order: int = 0) -> np.ndarray:
        """Put values of the image's pixels back onto the slice.

        Args:
            image: labels or probabilities (..., H, W) of the prepared image's pixels.
            outside: value of the slice's pixels that the image does not cover.
            order: 0 takes the nearest pixel (labels), 1 interpolates (probabilities).

        Returns:
            An array (..., rows, columns) of the image's type: the image's value at the centre of
            each pixel of the slice.
        """
        box, inside = self.covered(image, order=order)
        whole = np.full((*image.shape[:-2], self.rows, self.columns), outside, image.dtype)
        whole[(..., *box)] = inside
        return whole

    def covered(
        self, image: np.ndarray, *, order: int = 0
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Return the part of the slice that the image covers, and the values there.

        Arguments are those of :meth:`back`.
        """
        box = []
        # Columns first: most of the work is done before there are more rows.
        for axis, first, length in ((-1, self.left, self.columns), (-2, self.top, self.rows)):
            places = (np.arange(length) + 0.5 - first) / self.pixel
            within = np.flatnonzero((places >= 0) & (places < image.shape[axis]))
            box.append(slice(within[0], within[-1] + 1) if len(within) else slice(0))
            image = _along(image, axis, places[box[-1]], order)
        return (box[1], box[0]), image


@dataclass(frozen=True)
class PreparedSlice:
    """One slice between or after the steps of preprocessing.

    Attributes:
        image: grey values in [0, 1], float32 (H, W).
        label_sets: the labels that each pixel may have, bit k for label k, uint8 (H, W).
        lung: the lung field, bool (H, W).
        placement: the place of the pixels on the scan's slice.
        index: number of the slice in the scan, from the feet.
    """

    image: np.ndarray
    label_sets: np.ndarray
    lung: np.ndarray
    placement: Placement
    index: int = 0


def window(voxels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale grey values from [``low``, ``high``] to [0, 1], float32, and clip the others."""
    scaled = (voxels.astype(np.float32) - low) / (high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def open_and_close(
    lung: np.ndarray, spacing: tuple[float, ...], opening: float, closing: float
) -> np.ndarray:
    """Open, then close, a lung field slice by slice, with discs.

    Args:
        lung: bool (S, R, C).
        spacing: of slices, rows and columns.
        opening: radius in the unit of ``spacing``; removes smaller specks.
        closing: radius; fills smaller gaps.
    """
    pixel = spacing[1:]
    return np.stack([closed(opened(mask, opening, pixel), closing, pixel) for mask in lung])


def crop(one: PreparedSlice, margin: int) -> PreparedSlice:
    """Cut to the box around the lung field plus ``margin`` pixels, within the image."""
    rows, columns = (np.flatnonzero(one.lung.any(axis)) for axis in (1, 0))
    height, width = one.lung.shape
    top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
    bottom, right = min(rows[-1] + 1 + margin, height), min(columns[-1] + 1 + margin, width)
    box = np.s_[top:bottom, left:right]
    place = one.placement
    return replace(
        one,
        image=one.image[box],
        label_sets=one.label_sets[box],
        lung=one.lung[box],
        placement=replace(
            place,
            top=float(place.top + top * place.pixel),
            left=float(place.left + left * place.pixel),
        ),
    )


def zero_outside(one: PreparedSlice) -> PreparedSlice:
    """Set grey values outside the lung field to 0; labels stay."""
    return replace(one, image=np.where(one.lung, one.image, np.float32(0)))


def pad_to_square(one: PreparedSlice) -> PreparedSlice:
    """Pad the shorter side on both ends with black.

    The padding is labelled background, except in a slice without labels, which stays unlabelled.
    """
    unlabelled = (one.label_sets == ALL_LABELS).all()
    fill = ALL_LABELS if unlabelled else 1 << BACKGROUND
    side = max(one.image.shape)
    before = [(side - length) // 2 for length in one.image.shape]
    pads = [(b, side - n - b) for b, n in zip(before, one.image.shape, strict=True)]
    place = one.placement
    return replace(
        one,
        image=np.pad(one.image, pads),
        label_sets=np.pad(one.label_sets, pads, constant_values=fill),
        lung=np.pad(one.lung, pads),
        placement=replace(
            place,
            top=place.top - before[0] * place.pixel,
            left=place.left - before[1] * place.pixel,
        ),
    )


def resize(one: PreparedSlice, size: int) -> PreparedSlice:
    """Resize a square slice to ``size`` x ``size``: grey values anti-aliased, label sets nearest.

    Lung fields are resized like label sets.
    """
    side = one.image.shape[0]

    def to_size(array: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(array).resize((size, size), resampling))

    def nearest(array: np.ndarray) -> np.ndarray:
        if array.min() == array.max():  # as in unlabelled slices
            return np.full((size, size), array[0, 0])
        return to_size(array, Image.Resampling.NEAREST)

    return replace(
        one,
        image=to_size(one.image, Image.Resampling.BILINEAR).clip(0, 1),
        label_sets=nearest(one.label_sets),
        lung=nearest(one.lung.view(np.uint8)).view(bool),
        placement=replace(one.placement, pixel=one.placement.pixel * side / size),
    )


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Round grey values in [0, 1] to the 256 levels that datasets store, uint8.

    Every slice is rounded to these levels before a network sees it;
    :func:`~pyro_stitchnet.data.datasets.slices.from_bytes` is the inverse.
    """
    return np.round(image * 255).astype(np.uint8)


@dataclass(frozen=True)
class Preprocessing:
    """The steps from a scan to slices, and their parameters.

    Lengths are in mm where the scan has a spacing, else in pixels.

    Attributes:
        size: rows and columns of a slice; a multiple of 64 for `guided`, of 32 for other presets.
            The article's is 352.
        window: HU that become 0 and 1. Of scans that are not in HU, black and white become 0 and 1.
        lungs: the lung method: "classical", "lungmask" (the package of that name), or "none":
            the whole image, for slices that are already cropped to the lungs.
        opening: radius of the opening that smooths the lung field.
        closing: radius of the closing that smooths the lung field.
        margin: kept around the lung field.
        zero_outside: black outside the lung field, as in the article.
        least_lung: slices whose lung field covers a smaller share are left out.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # for those that a checkpoint records

    size: Side = 320
    window: tuple[GreyValue, GreyValue] = LUNG_WINDOW
    lungs: LungMethod = "classical"
    opening: Millimetres = 2.0
    closing: Millimetres = 4.0
    margin: Millimetres = 5.0
    zero_outside: bool = False
    least_lung: Share = 0.01

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.size < 32 or self.size % 32:
            raise ValueError(f"size {self.size} is not a positive multiple of 32")
        if not self.window[0] < self.window[1]:
            raise ValueError(f"window {self.window}: the first value must be below the second")
        if self.lungs not in (known := get_args(LungMethod)):
            raise ValueError(f"lungs {self.lungs!r} is unknown; choose one of {', '.join(known)}")
        check_ranges(self)

    def slices(
        self,
        stack: "Stack",
        label_sets: Sequence[np.ndarray] | np.ndarray | None = None,
        *,
        stacked: bool = True,
    ) -> Iterator[PreparedSlice]:
        """Prepare the slices of a scan, from the feet; slices with too little lung are left out.

        What lies outside the field of view counts as air, see
        :func:`~pyro_stitchnet.data.preprocessing.fill.without_fill`.

        One slice is in memory at a time, if the stack's slices are in a file.

        Args:
            stack: the scan's axial slices.
            label_sets: the labels that each pixel may have, bit k for label k, uint8 (R, C) for
                each slice; None where nothing is labelled.
            stacked: whether neighbouring slices are neighbours in the patient.

        Raises:
            ValueError: all voxels are equal, or neither Hounsfield units nor a full grey scale.
        """
        if stack.range[0] == stack.range[1]:
            raise ValueError(f"{stack.source}: all its voxels are {stack.range[0]}; drop it")
        limits = self.limits(stack)
        stack = without_fill(stack, limits)
        for index, lung in enumerate(self._lung_fields(stack, limits, stacked)):
            if np.count_nonzero(lung) / lung.size <= self.least_lung:
                continue
            image = window(stack.slices[index], *limits)
            if label_sets is None:
                sets: np.ndarray = np.broadcast_to(np.uint8(ALL_LABELS), image.shape)
            else:
                sets = label_sets[index]
            one = PreparedSlice(image, sets, lung, Placement(*image.shape), index)
            one = crop(one, round(self.margin / stack.spacing[1]))
            if self.zero_outside:
                one = zero_outside(one)
            yield resize(pad_to_square(one), self.size)

    def limits(self, stack: "Stack") -> tuple[float, float]:
        """Return the grey values of a scan that become 0 and 1.

        Raises:
            ValueError: they are neither Hounsfield units nor span a full scale.
        """
        if not stack.hounsfield:
            return stack.full_scale()
        smallest, largest = stack.range
        if smallest >= -200 and largest >= 600:  # a scan with bone, but without air
            raise ValueError(
                f"{stack.source}: its grey values, {smallest:g} to {largest:g}, hold no air or "
                "lung, which lie below -200 Hounsfield units; if they are Hounsfield units plus "
                "1000 or 1024, correct its RescaleIntercept"
            )
        return self.window

    def _lung_fields(
        self, stack: "Stack", limits: tuple[float, float], stacked: bool
    ) -> Iterator[np.ndarray]:
        """Yield the smoothed lung field of each slice, bool (R, C)."""
        from pyro_stitchnet.data.preprocessing.lungs import LUNG_METHODS  # imports scipy

        if self.lungs == "none":
            shape = stack.slices[0].shape
            for _ in range(len(stack)):
                yield np.ones(shape, bool)
            return
        grey: Sequence[np.ndarray] | np.ndarray = stack.slices
        if not stack.hounsfield:
            grey = np.stack([window(one, *limits) for one in stack.slices])
        find_lungs = LUNG_METHODS[self.lungs]
        parts = [grey] if stacked else (one[None] for one in grey)
        for part in parts:
            for lung in find_lungs(part, stack.spacing, hounsfield=stack.hounsfield):
                yield open_and_close(lung[None], stack.spacing, self.opening, self.closing)[0]


def _along(image: np.ndarray, axis: int, places: np.ndarray, order: int) -> np.ndarray:
    """Sample the image along an axis at places in pixels from its edge; see `Placement.back`."""
    last = image.shape[axis] - 1
    if order == 0:
        return image.take(np.floor(places).astype(int), axis)
    between = (places - 0.5).clip(0, last)
    lower = np.floor(between).astype(int)
    weight = (between - lower).astype(image.dtype)
    weight = weight[:, None] if axis == -2 else weight
    below = image.take(lower, axis)
    value = image.take(np.minimum(lower + 1, last), axis)
    value -= below  # in place: new arrays take longer than the arithmetic
    value *= weight
    value += below
    return value
