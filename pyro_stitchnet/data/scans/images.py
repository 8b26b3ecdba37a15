"""Slices and masks from image files: PNG and JPEG."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pyro_stitchnet.data.scans.common import reading, without_warnings
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS

__all__ = ["read_grey_image", "read_images", "read_mask_image"]

GREY_NOISE = 3
"""The largest difference between the channels of a grey image, of 255: JPEG rounds each channel."""


def read_grey_image(path: Path) -> np.ndarray:
    """Read grey values from 0 (black) to 255 (white), float32 (R, C); 16 bits give fractions.

    Raises:
        ValueError: the file is unreadable, or the image is not grey.
    """
    image = _open(path)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.float32) / 257
    colours = np.asarray(image.convert("RGB")).astype(np.float32)
    if image.mode in ("I", "F") or np.ptp(colours, axis=-1).max(initial=0) > GREY_NOISE:
        raise ValueError(
            f"{path}: an image of mode {image.mode} that is not grey; save it as 8-bit or 16-bit "
            "grey"
        )
    return colours.mean(-1)


def read_mask_image(path: Path) -> np.ndarray:
    """Read values, or indices of a palette, float32 (R, C).

    Raises:
        ValueError: the file is unreadable, or has neither 8-bit values nor a palette.
    """
    image = _open(path)
    if image.mode not in ("L", "P"):
        raise ValueError(
            f"{path}: a mask must be an 8-bit image whose values are labels, not of mode "
            f"{image.mode}; save it as 8-bit grey"
        )
    return np.asarray(image).astype(np.float32)


def read_images(paths: Sequence[Path], read: Callable[[Path], np.ndarray]) -> Iterator[np.ndarray]:
    """Read the slices of one scan from image files, one after the other.

    Args:
        paths: a file for each slice.
        read: reads one file, such as :func:`read_grey_image`.

    Raises:
        ValueError: a file is no readable image, or differs in size from the first.
    """
    shape = None
    for path in paths:
        if path.suffix.lower() not in IMAGE_ENDINGS:
            raise ValueError(
                f"{path}: only images ({', '.join(IMAGE_ENDINGS)}) make up a sequence of slices"
            )
        one = read(path)
        shape = shape or one.shape
        if one.shape != shape:
            raise ValueError(
                f"{path}: is {one.shape}, but {paths[0].name} {shape}; the slices of one scan "
                "have one size"
            )
        yield one


def _open(path: Path) -> Image.Image:
    with without_warnings(), reading(path, "fetch or export it again"), Image.open(path) as image:
        image.load()
        return image
