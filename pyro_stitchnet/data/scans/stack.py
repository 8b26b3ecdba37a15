"""The axial slices of a scan one by one, in memory or on disk: what may be larger than memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyro_stitchnet.data.scans.volume import Volume

__all__ = ["Spool", "Stack"]


class Spool(Sequence[np.ndarray]):
    """Arrays of one shape and type in a file: appended one by one, read one by one.

    The file holds the numbers and nothing else, so that it can be mapped into memory.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> None:
        """Begin with none.

        Args:
            path: a file to write anew.
            shape: of each array.
            dtype: of each array.
        """
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)
        self._count = int(np.prod(self.shape))
        self._length, self._reversed = 0, False
        path.write_bytes(b"")

    def append(self, array: np.ndarray) -> None:
        """Add one array of the spool's shape."""
        if array.shape != self.shape:
            raise ValueError(f"{self.path}: an array is {array.shape}, not {self.shape}")
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(array, self.dtype).data)
        self._length += 1

    def reverse(self) -> None:
        """Count the arrays from the other end from now on."""
        self._reversed = not self._reversed

    def __len__(self) -> int:
        """How many there are."""
        return self._length

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
        """A copy of the array number ``i``."""
        if not 0 <= i < self._length:
            raise IndexError(i)
        i = self._length - 1 - i if self._reversed else i
        offset = i * self._count * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, self._count, offset=offset).reshape(self.shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        """All of them."""
        return (self[i] for i in range(len(self)))

    def mapped(self) -> np.ndarray:
        """All of them as one read-only array (n, *shape), in memory only where it is looked at."""
        whole = np.memmap(self.path, self.dtype, "r", shape=(self._length, *self.shape))
        return whole[::-1] if self._reversed else whole


@dataclass(frozen=True)
class Stack:
    """A scan as axial slices, see :func:`~pyro_stitchnet.data.scans.volume.to_axial`.

    Attributes:
        slices: grey values (R, C) from feet to head, an array (S, R, C) or a :class:`Spool`.
        shape: of the scan's own grid, (I, J, K).
        affine: of the scan's own grid, RAS+, (4, 4).
        spacing: mm between slices, rows and columns.
        hounsfield: whether grey values are Hounsfield units.
        range: the least and the largest grey value.
        source: the file or folder.
        files: of a DICOM series, one for each step along the grid's last axis.
    """

    slices: Sequence[np.ndarray] | np.ndarray
    shape: tuple[int, ...]
    affine: np.ndarray
    spacing: tuple[float, ...]
    hounsfield: bool
    range: tuple[float, float]
    source: Path
    files: tuple[Path, ...] = ()

    @classmethod
    def of(cls, volume: Volume) -> "Stack":
        """The slices of a volume in memory.

        Raises:
            ValueError: a voxel is not finite.
        """
        slices = np.ascontiguousarray(volume.axial())  # all that follows is faster by a third
        if not np.isfinite(slices).all():
            raise ValueError(f"{volume.source}: holds voxels that are no number; mend or drop it")
        return cls(
            slices,
            volume.voxels.shape,
            volume.affine,
            volume.axial_spacing(),
            volume.hounsfield,
            (float(slices.min()), float(slices.max())),
            volume.source,
        )

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.slices)
