"""Binary morphology with discs whose radius is a length.

Like ``skimage.morphology.isotropic_dilation`` and its relatives, but with unions of shifted masks
instead of a distance transform: ten times as fast for the radii of a few pixels that occur here.
"""

import math

import numpy as np

__all__ = ["closed", "dilated", "eroded", "opened"]


def dilated(mask: np.ndarray, radius: float, pixel: tuple[float, ...]) -> np.ndarray:
    """Return all pixels at most ``radius`` away from a pixel of the mask.

    Args:
        mask: bool (R, C).
        radius: distance between pixel centres, in the unit of ``pixel``.
        pixel: distance between rows and between columns.
    """
    height, most = len(mask), mask.shape[1] - 1
    run, width = mask.copy(), 0  # the mask, widened along its rows by `width` pixels on each side
    whole = np.zeros_like(mask)
    for rows in range(min(int(radius / pixel[0]), height - 1), -1, -1):
        while width < most and math.hypot(rows * pixel[0], (width + 1) * pixel[1]) <= radius:
            width += 1
            run[:, width:] |= mask[:, :-width]
            run[:, :-width] |= mask[:, width:]
        whole[rows:] |= run[: height - rows]
        whole[: height - rows] |= run[rows:]
    return whole


def eroded(mask: np.ndarray, radius: float, pixel: tuple[float, ...]) -> np.ndarray:
    """Return all pixels farther than ``radius`` from every pixel outside the mask.

    Pixels beyond the image border do not count. Arguments are those of :func:`dilated`.
    """
    return ~dilated(~mask, radius, pixel)


def opened(mask: np.ndarray, radius: float, pixel: tuple[float, ...]) -> np.ndarray:
    """Remove the parts into which no disc fits: erosion, then dilation.

    Arguments are those of :func:`dilated`.
    """
    return dilated(eroded(mask, radius, pixel), radius, pixel)


def closed(mask: np.ndarray, radius: float, pixel: tuple[float, ...]) -> np.ndarray:
    """Fill the gaps into which no disc fits: dilation, then erosion.

    Arguments are those of :func:`dilated`.
    """
    return eroded(dilated(mask, radius, pixel), radius, pixel)
