"""Slices and masks from image files: PNG and JPEG."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from pyro_stitchnet.data.scans.common import LONGEST_AXIS, reading, without_warnings
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS

__all__ = ["read_grey_image", "read_images", "read_mask_image"]

FORMATS = ("PNG", "JPEG")
"""The formats that are read, whatever the ending of a file's name."""

LOSSLESS = ("PNG",)
"""The formats of masks: a lossy one changes labels along their edges."""

NEARLY_BLACK = 32
"""A palette of greys below this does not show labels; the greys may be the labels themselves."""

GREY_NOISE = 3
"""The largest difference between the channels of a grey image, of 255: JPEG rounds each channel."""


def read_grey_image(path: Path) -> np.ndarray:
    """Read grey values from 0 (black) to 255 (white), float32 (R, C); 16 bits give fractions.

    The image is turned as its EXIF tag says, as viewers and annotation tools do.

    Raises:
        ValueError: the file is unreadable, or the image is not grey.
    """
    image = _open(path)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.float32) / 257
    if image.mode == "L":
        return np.asarray(image).astype(np.float32)
    colours = np.asarray(image.convert("RGB")).astype(np.float32)
    if image.mode in ("I", "F") or np.ptp(colours, axis=-1).max(initial=0) > GREY_NOISE:
        raise ValueError(
            f"{path}: an image of mode {image.mode} that is not grey; save it as 8-bit or 16-bit "
            "grey"
        )
    return colours.mean(-1)


def read_mask_image(path: Path) -> np.ndarray:
    """Read values, or indices of a palette, float32 (R, C); turned like the image of the mask.

    Raises:
        ValueError: the file is unreadable, is compressed with losses, has neither 8-bit values nor
            a palette, or has a palette that contradicts its indices.
    """
    image = _open(path)
    if image.format not in LOSSLESS:
        raise ValueError(
            f"{path}: a mask in the lossy format {image.format}, which changes labels at edges; "
            "export it as PNG from the program that drew it"
        )
    if image.mode not in ("L", "P"):
        raise ValueError(
            f"{path}: a mask must be an 8-bit image whose values are labels, not of mode "
            f"{image.mode}; save it as 8-bit grey"
        )
    values = np.asarray(image)
    if image.mode == "P":
        colours = np.asarray(image.convert("RGB"))
        if (np.ptp(colours, axis=-1) == 0).all() and colours.any():
            _check_greys(path, values, colours[..., 0])
    return values.astype(np.float32)


def _check_greys(path: Path, indices: np.ndarray, greys: np.ndarray) -> None:
    """Refuse a grey palette whose greys may be the labels, or are in another order than these."""
    if greys.max() < NEARLY_BLACK and (greys != indices).any():
        raise ValueError(
            f"{path}: its palette gives nearly black greys that differ from the indices, so "
            "either may be the labels; save it as 8-bit grey"
        )
    first = np.unique(indices, return_index=True)[1]
    if (np.diff(greys.flat[first].astype(int)) < 0).any():
        raise ValueError(
            f"{path}: its palette gives greys in another order than the indices, so a program may "
            "have renumbered the labels; save it as 8-bit grey whose values are the labels"
        )


def read_images(paths: Sequence[Path], read: Callable[[Path], np.ndarray]) -> Iterator[np.ndarray]:
    """Read the slices of one scan from image files, one after the other.

    Args:
        paths: a file for each slice.
        read: reads one file, such as :func:`read_grey_image`.

    Raises:
        ValueError: a file is not a readable image, or differs in size from the first.
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
    """Read a file to its end and turn the image upright."""
    with without_warnings(), reading(path, "fetch or export it again"), path.open("rb") as file:
        _checked(file).verify()  # the checksums of PNG, which loading does not look at
        file.seek(0)
        image = _checked(file)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _checked(file: BinaryIO) -> Image.Image:
    """Read a file's header and check what it claims."""
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"its content is neither {' nor '.join(FORMATS)}") from error
    if max(image.size) > LONGEST_AXIS:
        raise ValueError(f"{image.size[0]} x {image.size[1]} pixels; at most {LONGEST_AXIS} a side")
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError("it holds several pictures; save each as a file of its own")
    return image
