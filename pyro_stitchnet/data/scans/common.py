"""Helpers that the readers of every format share."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

__all__ = [
    "AIR",
    "LONGEST_AXIS",
    "LPS_TO_RAS",
    "check_finite",
    "counted",
    "file_beside",
    "looks_hounsfield",
    "reading",
    "without_warnings",
]

AIR = -1024.0
"""The value of everything outside a scan's field of view, in Hounsfield units."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the axes of DICOM and ITK (left, back, head) to those of nibabel (right, front, head)."""

LONGEST_AXIS = 8192
"""The most voxels along an axis of a volume, slice or image: more would fill the memory."""


def without_warnings() -> warnings.catch_warnings:
    """Silence libraries while they read: faults that matter are raised as errors."""
    return warnings.catch_warnings(action="ignore")


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn any error of a library into a ValueError that names the file and a remedy.

    A ValueError whose message begins with the file's name stays as it is.

    Args:
        path: the file that is read in the block.
        remedy: what the user can do about it, without a capital letter or full stop.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: unreadable ({reason}); {remedy}") from error


def file_beside(header: Path, name: str) -> Path:
    """Return the file that a header names, in the header's folder or below it.

    Only the name is checked: the file itself may be a link.

    Args:
        header: the file that names the other one.
        name: as in the header.

    Raises:
        ValueError: the name leads elsewhere, or there is no such file; the message names the
            header.
    """
    parts = re.split(r"[/\\]", name)
    if not name.isprintable() or not parts[0] or ".." in parts or ":" in parts[0]:
        raise ValueError(
            f"{header}: names the file {name!r}, but a header may only name files in or below its "
            "folder; move the file there and correct the header"
        )
    for folder in (header.parent, header.resolve().parent):
        if (file := folder.joinpath(*parts)).is_file():
            return file
    raise ValueError(f"{header}: names the file {name!r}, which is missing; copy it there")


LARGEST = 2**20
"""The largest grey value of CT, with a wide margin: scanners store at most 16 bits."""


def looks_hounsfield(voxels: np.ndarray) -> bool:
    """Return whether grey values of unknown unit are Hounsfield units: some lie below -200.

    Air is -1000 HU and lung about -800 HU; values in other units do not reach so far below 0.
    """
    return bool((voxels < -200).any())


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: 1 slice, 2 slices."""
    return f"{number} {noun}" + "s" * (number != 1)


def check_finite(grey: np.ndarray, source: Path) -> None:
    """Refuse values that are infinite, not a number, or too large for CT.

    Raises:
        ValueError: there are some; the message names the file.
    """
    if not np.isfinite(grey).all():
        raise ValueError(
            f"{source}: some values are infinite or not a number; replace them, in a scan by the "
            "grey value of air"
        )
    largest = max(-float(grey.min(initial=0)), float(grey.max(initial=0)))
    if largest > LARGEST:
        raise ValueError(
            f"{source}: has values of up to {largest:.3g}, which no CT has; save it in Hounsfield "
            "units"
        )
