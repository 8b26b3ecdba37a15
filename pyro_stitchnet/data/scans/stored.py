"""A volume in a file: its geometry and how its voxels are stored, read plane by plane to the end.

What a header claims is checked against limits and the file's length before anything is read.
Compressed voxels are unpacked to the last byte, so the checksum at their end is verified.
"""

import bz2
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pyro_stitchnet.data.scans.common import LONGEST_AXIS, check_finite, looks_hounsfield, reading
from pyro_stitchnet.data.scans.volume import Volume, along_body, check_affine

__all__ = ["AGAIN", "MOST_VOXELS", "StoredVolume"]

AGAIN = "fetch or export it again"
"""The remedy for a damaged file."""

MOST_VOXELS = 2**31
"""The most voxels of a volume."""

DEFLATED = 1100
"""gzip and zlib pack at most about 1,032 bytes into one."""


@dataclass(frozen=True)
class StoredVolume:
    """A volume whose header is read, and whose voxels can be read plane by plane.

    Attributes:
        source: the file that the user gave.
        file: the file that holds the voxels; another one if the header has a file of its own.
        start: where the voxels begin in ``file``, packed or not.
        packing: how everything from ``start`` on is compressed; "" if it is not.
        skipped: bytes before the first voxel, after unpacking.
        shape: of the grid, (I, J, K).
        dtype: of the stored numbers.
        affine: of the grid, RAS+, mm, (4, 4).
        slowest: the axis along which the file stores planes one after the other: the last axis
            (Fortran order) or the first (C order).
        scaling: slope and intercept; value = stored number times slope plus intercept.
        spaced: see :class:`~pyro_stitchnet.data.scans.volume.Volume`.
        warnings: see :class:`~pyro_stitchnet.data.scans.volume.Volume`.
        nifti: see :class:`~pyro_stitchnet.data.scans.volume.Volume`.

    Raises:
        ValueError: the header claims what no scan has, or more or fewer voxels than the file
            holds; the message names the file.
    """

    source: Path
    file: Path
    start: int
    packing: Literal["", "gzip", "zlib", "bzip2"]
    skipped: int
    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    slowest: Literal[0, 2] = 2
    scaling: tuple[float, float] = (1.0, 0.0)
    spaced: bool = True
    warnings: tuple[str, ...] = ()
    nifti: bytes = b""

    def __post_init__(self) -> None:
        """Check the header's claims."""
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(
                f"{self.source}: a volume has three axes, all longer than 0, not shape "
                f"{self.shape}; give one channel and one time point"
            )
        if max(self.shape) > LONGEST_AXIS or math.prod(self.shape) > MOST_VOXELS:
            raise ValueError(
                f"{self.source}: claims {_sizes(self.shape)} voxels, but a scan has at most "
                f"{LONGEST_AXIS} along an axis and {MOST_VOXELS:,} in all; crop or thin it"
            )
        check_affine(self.affine, self.source)
        with reading(self.source, AGAIN):
            if self.dtype.kind not in "biuf" or self.dtype.itemsize > 8:
                raise ValueError(f"an array of {self.dtype}, but grey values are real numbers")
            if not np.isfinite(self.scaling).all():
                raise ValueError(f"its values are scaled by {self.scaling}")
            claimed = self.skipped + math.prod(self.shape) * self.dtype.itemsize
            stored = self.file.stat().st_size - self.start
            most = {"": stored, "bzip2": math.inf}.get(self.packing, DEFLATED * stored)
            if claimed > most or (not self.packing and claimed < most):
                raise ValueError(
                    f"its header claims {claimed:,} bytes, {_sizes(self.shape)} voxels of "
                    f"{self.dtype}, but {self.file.name} holds {max(stored, 0):,}"
                    + (" of packed ones" if self.packing else "")
                )

    @property
    def streams(self) -> bool:
        """Whether its planes are axial slices, in order from the feet or from the head."""
        return along_body(self.affine, self.slowest)

    def planes(self) -> Iterator[np.ndarray]:
        """Read the planes along the slowest axis one after the other, float32.

        Raises:
            ValueError: the file is damaged, or holds more or fewer voxels than its header claims.
                Damage in a packed file may only show after the last plane.
        """
        rows, columns = (n for axis, n in enumerate(self.shape) if axis != self.slowest)
        with reading(self.source, AGAIN), ExitStack() as stack:
            file = self._open(stack)
            if len(file.read(self.skipped)) < self.skipped:
                raise ValueError("it ends before its first voxel")
            for _ in range(self.shape[self.slowest]):
                data = file.read(rows * columns * self.dtype.itemsize)
                if len(data) < rows * columns * self.dtype.itemsize:
                    raise ValueError("it ends before its last voxel")
                numbers = np.frombuffer(data, self.dtype)
                turned = self.slowest == 2
                plane = numbers.reshape(columns, rows).T if turned else numbers.reshape(rows, -1)
                yield self._scaled(plane)
            if file.read(1):  # reads the checksum of a packed file, too
                raise ValueError("it holds more voxels than its header claims")

    def volume(self) -> Volume:
        """Read the whole volume.

        Raises:
            ValueError: see :meth:`planes`; or a value is infinite or not a number.
        """
        order: Literal["C", "F"] = "F" if self.slowest == 2 else "C"
        voxels = np.empty(self.shape, np.float32, order)
        smallest = np.inf
        for plane, read in zip(np.moveaxis(voxels, self.slowest, 0), self.planes(), strict=True):
            check_finite(read, self.source)
            plane[...] = read
            smallest = min(smallest, read.min())
        return Volume(
            voxels,
            self.affine,
            looks_hounsfield(np.array(smallest)),
            self.source,
            spaced=self.spaced,
            warnings=self.warnings,
            nifti=self.nifti,
        )

    def _open(self, stack: ExitStack) -> io.BufferedIOBase:
        """Open the unpacked voxels; compressed formats other than gzip are unpacked in memory."""
        file = stack.enter_context(self.file.open("rb"))
        file.seek(self.start)
        if self.packing == "gzip":
            return stack.enter_context(gzip.GzipFile(fileobj=file))
        if self.packing:
            claimed = self.skipped + math.prod(self.shape) * self.dtype.itemsize
            return io.BytesIO(_unpacked(file.read(), self.packing == "zlib", claimed))
        return file

    def _scaled(self, numbers: np.ndarray) -> np.ndarray:
        """Return grey values, float32; in double precision before that."""
        slope, intercept = self.scaling
        with np.errstate(all="ignore"):  # what becomes infinite is refused later
            if slope != 1:
                numbers = numbers * np.float64(slope)
            if intercept != 0:
                numbers = numbers + np.float64(intercept)
            return numbers.astype(np.float32)


def _unpacked(data: bytes, zlib_not_bzip2: bool, most: int) -> bytes:
    """Unpack data that ends where its streams end and gives at most ``most`` bytes.

    Raises:
        ValueError: it gives more, is cut short, or has other data behind it.
    """
    parts: list[bytes] = []
    while data or not parts:
        # 47: a header of either zlib or gzip, as in ITK.
        unpacker = zlib.decompressobj(47) if zlib_not_bzip2 else bz2.BZ2Decompressor()
        parts.append(unpacker.decompress(data, most + 1))
        most -= len(parts[-1])
        if most < 0:
            raise ValueError("it holds more voxels than its header claims")
        if not unpacker.eof:
            raise ValueError("its compressed data are cut short")
        data = unpacker.unused_data
    return b"".join(parts)


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
