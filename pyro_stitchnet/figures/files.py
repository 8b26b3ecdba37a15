"""Figures as PNG files."""

import io
import os

from matplotlib.figure import Figure

from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["as_png", "save_figure"]


def as_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file at 150 dots per inch, cropped to its contents."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, bbox_inches="tight", pad_inches=0.05)
    return file.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG file at 150 dots per inch, cropped to its contents, atomically.

    Args:
        figure: The figure.
        path: The file to write. Its directory must exist.

    Raises:
        FileNotFoundError: If the directory does not exist.
    """
    write_atomically(path, as_png(figure))
