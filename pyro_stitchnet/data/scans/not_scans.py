"""Reading scans, and refusing what is none: results of this program, and label maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_stitchnet.data.scans.endings import NIFTI_ENDINGS, VOLUME_ENDINGS
from pyro_stitchnet.data.scans.nifti_header import read_header
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.streaming import read_stack

__all__ = ["read_scan", "refuse_label_map"]

FEW = 32
"""The most values of a label map, whole numbers from 0 to 255."""

DARK = 153
"""Values below this do not span the grey scale of 0 to 255."""


def read_scan(
    image: Path | Sequence[Path], spool: Path | None = None, *, series: str | None = None
) -> Stack:
    """Read a scan like :func:`~pyro_stitchnet.data.scans.streaming.read_stack`.

    Raises:
        FileNotFoundError, ValueError: as that function; or the file is a map that `stitchnet
            predict` wrote, or a label map.
    """
    _refuse_result(image)
    stack = read_stack(image, spool, series=series)
    refuse_label_map(image, stack)
    return stack


def _refuse_result(image: Path | Sequence[Path]) -> None:
    """Refuse a map that `stitchnet predict` wrote; its header says so.

    Raises:
        ValueError: the file is such a map, or has no readable header.
    """
    if not isinstance(image, Path) or not image.name.lower().endswith(NIFTI_ENDINGS):
        return
    if not image.is_file():  # the reader says so
        return
    header, _ = read_header(image)
    if bytes(header["descrip"]).startswith(b"stitchnet"):
        raise ValueError(
            f"{image}: a map that `stitchnet predict` wrote, not a scan; keep results in a folder "
            "of their own"
        )


def refuse_label_map(image: Path | Sequence[Path], stack: Stack) -> None:
    """Refuse a volume whose values are few whole numbers, all small or evenly spaced.

    Others, such as 42, 68, 195 and 255, may be a phantom without noise.

    Raises:
        ValueError: the scan is such a volume.
    """
    if not isinstance(image, Path) or not image.name.lower().endswith(VOLUME_ENDINGS):
        return
    smallest, largest = stack.range
    if smallest < 0 or largest > 255 or smallest == largest:
        return
    found: set[float] = set()
    for one in stack.slices:
        found.update(np.unique(one).tolist())
        if len(found) > FEW or any(value % 1 for value in found):
            return
    steps = np.diff(sorted(found))
    if largest >= DARK and np.ptp(steps) > 1:
        return
    values = ", ".join(f"{value:g}" for value in sorted(found)[:5])
    raise ValueError(
        f"{image}: a label map, not a scan: it holds only the values {values}"
        f"{', ...' if len(found) > 5 else ''}; keep masks in the layout of a source that has them"
    )
