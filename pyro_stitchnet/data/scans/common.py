"""Helpers that the readers of every format share."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

__all__ = [
    "LPS_TO_RAS",
    "check_finite",
    "counted",
    "looks_hounsfield",
    "reading",
    "without_warnings",
]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the axes of DICOM and ITK (left, back, head) to those of nibabel (right, front, head)."""


def without_warnings() -> warnings.catch_warnings:
    """Silence libraries while they read: faults that matter are raised as errors."""
    return warnings.catch_warnings(action="ignore")


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn any error of a library into a ValueError that names the file and a remedy.

    Args:
        path: the file that is read in the block.
        remedy: what the user can do about it, without a capital letter or full stop.
    """
    try:
        yield
    except Exception as error:
        # ITK's messages have several lines and begin with a place in its source code.
        reason = " ".join(str(error).split()).rpartition("ERROR: ")[2] or type(error).__name__
        raise ValueError(f"{path}: unreadable ({reason}); {remedy}") from error


def looks_hounsfield(voxels: np.ndarray) -> bool:
    """Return whether grey values of unknown unit are Hounsfield units: some lie below -200.

    Air is -1000 HU and lung about -800 HU; values in other units do not reach as far below 0.
    """
    return bool((voxels < -200).any())


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: 1 slice, 2 slices."""
    return f"{number} {noun}" + "s" * (number != 1)


def check_finite(grey: np.ndarray, source: Path) -> None:
    """Refuse grey values that are infinite or not a number.

    Raises:
        ValueError: there are some; the message names the file.
    """
    if not np.isfinite(grey).all():
        raise ValueError(
            f"{source}: some grey values are infinite or not a number; set them to that of air"
        )
