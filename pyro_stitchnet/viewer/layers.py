"""The volumes of a scan as a browser gets them: cut, thinned, in small numbers, without headers.

Values are never interpolated: thinning keeps every n-th voxel. Every volume is written with a new
header, so nothing that a file's header may say of a patient leaves it.
"""

import gzip
import itertools
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

__all__ = ["LAYERS", "Grid", "Layer", "encode", "full_grid", "lung_grid", "present"]

MARGIN = 15.0
"""Millimetres kept around the lungs."""

SLAB = 32  # slices read at a time


@dataclass(frozen=True)
class Layer:
    """One kind of volume.

    Attributes:
        file: its name in a scan's folder.
        steps: steps that one unit is cut into for the browser: 1 for HU and labels, 1,000 for
            probabilities and nats.
        dtype: of the numbers sent.
    """

    file: str
    steps: int
    dtype: type[np.int16 | np.uint8]


LAYERS: Mapping[str, Layer] = {
    "scan": Layer("scan.nii.gz", 1, np.int16),
    "healthy": Layer("healthy.nii.gz", 1, np.int16),
    "labels": Layer("labels.nii.gz", 1, np.uint8),
    "uncertainty": Layer("uncertainty.nii.gz", 1000, np.int16),
    "lesion_probability": Layer("lesion_probability.nii.gz", 1000, np.int16),
}
"""The volumes a page can show, by name."""


@dataclass(frozen=True)
class Grid:
    """Which voxels of a scan are shown: those at start, start + step, ... before stop.

    Attributes:
        shape: of the scan (I, J, K), in voxels.
        start: the first voxel along each axis.
        stop: where each axis ends.
        step: distance of the voxels that are kept along each axis.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether every voxel is shown."""
        return self == Grid(self.shape, (0, 0, 0), self.shape, (1, 1, 1))

    def thinned(self, spacing: tuple[float, ...], most: int) -> "Grid":
        """The same with every n-th voxel of the axes that are finest, until ``most`` are left."""
        step = list(self.step)
        while self._size(step) > most:
            finest = min(range(3), key=lambda axis: spacing[axis] * step[axis])
            step[finest] += 1
        return Grid(self.shape, self.start, self.stop, tuple(step))

    def _size(self, step: list[int]) -> int:
        return int(np.prod([len(range(*s)) for s in zip(self.start, self.stop, step, strict=True)]))

    def slices(self) -> tuple[slice, ...]:
        """An index into the scan's array."""
        return tuple(map(slice, self.start, self.stop, self.step))

    def affine(self, affine: np.ndarray) -> np.ndarray:
        """Voxels of this grid to millimetres, from the scan's affine (4, 4)."""
        moved = np.diag([*self.step, 1.0])
        moved[:3, 3] = self.start
        return np.asarray(affine @ moved)


def present(folder: Path) -> list[str]:
    """The names of the layers that a scan's folder holds."""
    return [name for name, layer in LAYERS.items() if (folder / layer.file).is_file()]


def full_grid(folder: Path, most: int) -> Grid:
    """The whole scan, thinned to at most ``most`` voxels."""
    image = _open(folder, "labels")
    shape = image.shape
    return Grid(shape, (0, 0, 0), shape, (1, 1, 1)).thinned(image.header.get_zooms(), most)


def lung_grid(folder: Path, most: int) -> Grid:
    """The box around the lungs, with a margin, thinned; the whole scan where there are none."""
    image = _open(folder, "labels")
    spacing = image.header.get_zooms()
    seen = [np.zeros(n, bool) for n in image.shape]
    for first, slab in _slabs(image):
        inside = slab > 0
        seen[0] |= inside.any((1, 2))
        seen[1] |= inside.any((0, 2))
        seen[2][first : first + slab.shape[2]] = inside.any((0, 1))
    if not seen[0].any():
        return full_grid(folder, most)
    start, stop = [], []
    for axis, (lung, mm) in enumerate(zip(seen, spacing, strict=True)):
        where, margin = np.flatnonzero(lung), int(np.ceil(MARGIN / mm))
        start.append(max(0, int(where[0]) - margin))
        stop.append(min(image.shape[axis], int(where[-1]) + 1 + margin))
    grid = Grid(image.shape, tuple(start), tuple(stop), (1, 1, 1))
    return grid.thinned(spacing, most)


def encode(folder: Path, name: str, grid: Grid, *, packed: bool) -> bytes:
    """A layer of a scan as a NIfTI file.

    Args:
        folder: of the scan.
        name: a key of `LAYERS`.
        grid: the voxels to take.
        packed: whether to gzip it.

    Returns:
        The file: int16 or uint8, a slope that gives the values back to the layer's steps.

    Raises:
        FileNotFoundError: the scan has no such layer.
        ValueError: the file is no volume of the grid's shape.
    """
    layer, image = LAYERS[name], _open(folder, name)
    if image.shape != grid.shape:
        raise ValueError(
            f"{folder / layer.file}: {image.shape} voxels, but the labels have {grid.shape}; "
            "remove the folder and run `stitchnet predict` again"
        )
    whole, (rows, columns, slices) = np.iinfo(layer.dtype), grid.slices()
    wanted = range(slices.start, slices.stop, slices.step)
    parts = []
    for first, slab in _slabs(image):
        here = [k - first for k in wanted if first <= k < first + slab.shape[2]]
        part = slab[rows, columns][..., here].astype(np.float32) * layer.steps
        part = np.nan_to_num(np.rint(part), nan=0.0, posinf=whole.max, neginf=whole.min)
        parts.append(np.clip(part, whole.min, whole.max).astype(layer.dtype))
    sent = nib.Nifti1Image(np.concatenate(parts, axis=2), grid.affine(image.affine))
    sent.header.set_slope_inter(1 / layer.steps, 0)
    sent.header.set_xyzt_units("mm")
    data: bytes = sent.to_bytes()
    return gzip.compress(data, 6, mtime=0) if packed else data


def _open(folder: Path, name: str) -> nib.Nifti1Image:
    path = folder / LAYERS[name].file
    try:
        # Slabs come one after the other: a file that stays open is unpacked only once.
        image = nib.load(path, keep_file_open=True)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; remove the folder and run `stitchnet predict` again"
        ) from None
    except nib.filebasedimages.ImageFileError as error:
        raise ValueError(f"{path}: not a readable NIfTI file ({error})") from error
    assert isinstance(image, nib.Nifti1Image)  # as its name ends
    if len(image.shape) != 3:
        raise ValueError(f"{path}: a volume has three axes, not shape {image.shape}")
    return image


def _slabs(image: nib.Nifti1Image) -> Iterator[tuple[int, np.ndarray]]:
    """The volume from its first slice to its last, some slices at a time."""
    edges = range(0, image.shape[2] + SLAB, SLAB)
    for first, stop in itertools.pairwise(edges):
        try:
            yield first, np.asanyarray(image.dataobj[..., first:stop])
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{image.get_filename()}: damaged ({error}); "
                "remove the folder and run `stitchnet predict` again"
            ) from error
