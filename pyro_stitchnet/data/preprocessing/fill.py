"""What lies outside a scan's field of view becomes air.

Scanners cut the field of view to a disc, and programs turn, shift and enlarge scans. The pixels
outside then get one value: air in the best case, but often 0 or 1000 HU, which look like tissue.
The readers follow DICOM's padding tags; this module finds the fill that no tag describes.

The rule, slice by slice: a fill is a region of exactly one value that holds a corner of the slice
and touches its border, and the rest of the slice, which is the field of view, is nearly convex.
Noise keeps tissue from being constant, except where values were clipped. If tissue was clipped, the
rest of the slice is not convex. Only pixels outside the convex hull of the rest are changed. Fill
that is as dark as air is left as it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pyro_stitchnet.data.scans.common import AIR

if TYPE_CHECKING:
    from pyro_stitchnet.data.scans.stack import Stack

__all__ = ["without_fill"]

DARKEST_FILL = -900.0
"""Fill up to this value counts as air already, HU; without HU, the darkest quarter of the scale."""

LEAST_PIXELS = 10
"""The least number of pixels of a fill: fewer neighbours may be equal by chance."""

LEAST_SHARE = 0.01
"""Without HU a fill covers at least this share of a slice: among 256 levels many are equal."""

OUTSIDE = 0.5
"""The least share of a fill that lies outside the convex hull of the rest of the slice."""

OUTSIDE_IF_CLIPPED = 0.95
"""The same for the largest value of the scan, which clipped tissue has too."""


def without_fill(stack: "Stack", limits: tuple[float, float]) -> "Stack":
    """Return a scan with air where its slices are filled outside the field of view.

    In Hounsfield units air is -1024, in other units black.

    Args:
        stack: the scan. Slices without a fill stay as they are, to the bit.
        limits: the grey values of black and white.
    """
    black, white = limits
    air, darkest, share = AIR, DARKEST_FILL, 0.0
    if not stack.hounsfield:
        air, darkest, share = black, black + 0.25 * (white - black), LEAST_SHARE
    least = max(LEAST_PIXELS, share * stack.slices[0].size)
    return replace(stack, slices=_Filled(stack.slices, air, darkest, stack.range[1], least))


class _Filled(Sequence[np.ndarray]):
    """Slices (R, C) whose fill is replaced when they are read; the last one is kept."""

    def __init__(
        self,
        slices: Sequence[np.ndarray] | np.ndarray,
        air: float,
        darkest: float,
        largest: float,
        least: float,
    ) -> None:
        self._slices, self._air = slices, air
        self._darkest, self._largest, self._least = darkest, largest, least
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
        if self._last is None or self._last[0] != i:
            self._last = i, self._read(i)
        return self._last[1]

    def _read(self, i: int) -> np.ndarray:
        grey = self._slices[i]
        for value in {float(grey[row, column]) for row in (0, -1) for column in (0, -1)}:
            if value > self._darkest:
                share = OUTSIDE_IF_CLIPPED if value >= self._largest else OUTSIDE
                fill = _fill(grey, value, share, self._least)
                if fill is not None:
                    grey = np.where(fill, np.float32(self._air), grey)
        return grey

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))


def _fill(grey: np.ndarray, value: float, share: float, least: float) -> np.ndarray | None:
    """Return the pixels of the fill that has this value, bool (R, C); None if there is none.

    Args:
        grey: a slice.
        value: of one of its corners.
        share: of the fill that must lie outside the convex hull of the rest.
        least: number of pixels of a fill.
    """
    equal = grey == value
    if np.count_nonzero(equal) < least:  # as in most slices; what follows takes much longer
        return None
    from scipy import ndimage  # slow to import, and few scans have a fill

    from pyro_stitchnet.data.preprocessing.lungs import convex_hull

    parts, n = ndimage.label(equal)
    at_border = np.zeros(n + 1, bool)
    for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        at_border[edge] = True
    at_border[0] = False
    fill: np.ndarray = at_border[parts]
    size = np.count_nonzero(fill)
    if size < least:
        return None
    if size == fill.size:
        return fill
    outside = fill & ~convex_hull(~fill)
    return outside if np.count_nonzero(outside) >= max(least, share * size) else None
