"""The axial slices of a scan one by one, in memory or in a file for scans larger than memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyro_stitchnet.data.scans.common import check_finite
from pyro_stitchnet.data.scans.volume import Volume, axial_spacing
from pyro_stitchnet.runtime.files import naming

__all__ = ["Spool", "Stack"]

SCALES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
"""Black and white of scans that are not in Hounsfield units."""

OVERSHOOT = 0.05
"""How far interpolation may go beyond black and white, as a share of the scale."""

REACHED = 0.4
"""Grey values span a scale if they reach this share of it from both ends."""

FAINT = 0.1
"""The least share of the scale of a format that grey values must span."""


class Spool(Sequence[np.ndarray]):
    """Arrays of one shape and type in a file, appended and read one by one.

    The file holds the raw numbers only, so it can be mapped into memory.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> None:
        """Create an empty spool.

        Args:
            path: the file; overwritten if it exists.
            shape: of each array.
            dtype: of each array.
        """
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)
        self._count = int(np.prod(self.shape))
        self._length, self._reversed = 0, False
        path.write_bytes(b"")

    def append(self, array: np.ndarray) -> None:
        """Append one array of the spool's shape.

        Raises:
            ValueError: the array has another shape.
            OSError: the file cannot be written; the error names it.
        """
        if array.shape != self.shape:
            raise ValueError(f"{self.path}: an array is {array.shape}, not {self.shape}")
        with naming(self.path), self.path.open("ab") as file:
            file.write(np.ascontiguousarray(array, self.dtype).data)
        self._length += 1

    def reverse(self) -> None:
        """Reverse the order of the arrays."""
        self._reversed = not self._reversed

    def __len__(self) -> int:
        """Return the number of arrays."""
        return self._length

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
        """Read array number ``i`` from the file."""
        if not 0 <= i < self._length:
            raise IndexError(i)
        i = self._length - 1 - i if self._reversed else i
        offset = i * self._count * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, self._count, offset=offset).reshape(self.shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read the arrays one after the other."""
        return (self[i] for i in range(len(self)))

    def mapped(self) -> np.ndarray:
        """Return a read-only array (n, *shape) of all, mapped from the file."""
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
        range: the smallest and the largest grey value.
        source: the file or folder.
        study: which of the patient's studies; "" where the file does not name it.
        files: of a DICOM series, one for each index along the grid's last axis.
        spaced: whether the file states the distances between voxels; if not, they are 1.
        scale: the grey values of black and white, where the format fixes them; else None.
        warnings: doubts about what the file states, in sentences.
        nifti: see :class:`~pyro_stitchnet.data.scans.volume.Volume`.
    """

    slices: Sequence[np.ndarray] | np.ndarray
    shape: tuple[int, ...]
    affine: np.ndarray
    spacing: tuple[float, ...]
    hounsfield: bool
    range: tuple[float, float]
    source: Path
    study: str = ""
    files: tuple[Path, ...] = ()
    spaced: bool = True
    scale: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
    nifti: bytes = b""

    @classmethod
    def of(cls, volume: Volume) -> "Stack":
        """Return the slices of a volume in memory.

        Raises:
            ValueError: a voxel is infinite or not a number.
        """
        slices = np.ascontiguousarray(volume.axial())  # speeds up every later step by a third
        check_finite(slices, volume.source)
        return cls(
            slices,
            volume.voxels.shape,
            volume.affine,
            axial_spacing(volume.affine),
            volume.hounsfield,
            (float(slices.min()), float(slices.max())),
            volume.source,
            volume.study,
            spaced=volume.spaced,
            scale=volume.scale,
            warnings=volume.warnings,
            nifti=volume.nifti,
        )

    def full_scale(self) -> tuple[float, float]:
        """Return the grey values of black and white of a scan that is not in Hounsfield units.

        They are those of its format (``scale``), or else the first of :data:`SCALES` that the
        grey values span: they lie within it, up to :data:`OVERSHOOT`, and reach its first and last
        :data:`REACHED`.

        Raises:
            ValueError: its grey values are neither Hounsfield units nor span a full scale, or less
                than :data:`FAINT` of the scale of its format, such as 12 of 16 bits.
        """
        smallest, largest = self.range
        if self.scale is not None:
            black, white = self.scale
            if largest - smallest < FAINT * (white - black):
                raise ValueError(
                    f"{self.source}: its grey values, {smallest:.3g} to {largest:.3g}, span less "
                    f"than a tenth of {black:g} (black) to {white:g} (white); export it with a "
                    "lung window"
                )
            return self.scale
        for black, white in SCALES:
            beyond, part = OVERSHOOT * (white - black), REACHED * (white - black)
            within = black - beyond <= smallest and largest <= white + beyond
            if within and smallest <= black + part and largest >= white - part:
                return black, white
        hint = "convert it to Hounsfield units"
        if smallest >= -200 and 600 <= largest <= 65535:
            hint = (
                "if they are Hounsfield units plus 1000 or 1024, subtract that; else convert them "
                "to Hounsfield units"
            )
        scales = " or ".join(f"{black:g} to {white:g}" for black, white in SCALES)
        raise ValueError(
            f"{self.source}: its grey values, {smallest:g} to {largest:g}, are neither Hounsfield "
            f"units, in which air is -1000, nor a full scale ({scales}); {hint}"
        )

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.slices)
