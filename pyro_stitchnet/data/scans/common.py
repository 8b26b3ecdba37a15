"""What the readers of every format share."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

__all__ = ["LPS_TO_RAS", "counted", "looks_hounsfield", "refusing", "without_warnings"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM and ITK point left and back, nibabel does not


def without_warnings() -> warnings.catch_warnings:
    """Silences libraries while they read: what matters in a strange file becomes an error."""
    return warnings.catch_warnings(action="ignore")


@contextmanager
def refusing(path: Path, remedy: str) -> Iterator[None]:
    """Whatever a library raises on a bad file becomes a ValueError that names it."""
    try:
        yield
    except Exception as error:
        # On one line, without where in ITK's sources the error arose.
        reason = " ".join(str(error).split()).rpartition("ERROR: ")[2] or type(error).__name__
        raise ValueError(f"{path}: unreadable ({reason}); {remedy}") from error


def looks_hounsfield(voxels: np.ndarray) -> bool:
    """Whether grey values of unknown unit are Hounsfield units: some lie below -200.

    Only Hounsfield units reach so far below 0: air is -1000 and lung about -800.
    """
    return bool((voxels < -200).any())


def counted(number: int, what: str) -> str:
    """A number of things in words: 1 slice, 2 slices."""
    return f"{number} {what}" + "s" * (number != 1)
