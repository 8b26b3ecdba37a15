"""Writing a figure."""

import io
import os

from matplotlib.figure import Figure

from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["as_png", "save_figure"]


def as_png(figure: Figure) -> bytes:
    """A figure as PNG at 150 dots per inch, cut to its contents."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, bbox_inches="tight", pad_inches=0.05)
    return picture.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG at 150 dots per inch, cut to its contents, whole or not at all.

    Args:
        figure: Any figure of this package.
        path: The file to write. Its directory must exist.

    Raises:
        FileNotFoundError: If the directory does not exist.
    """
    write_atomically(path, as_png(figure))
