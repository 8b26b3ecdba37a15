"""The volumes of a scan as sent to the browser: cropped, thinned and quantised.

Values are never interpolated: thinning keeps every n-th voxel. Every volume gets a new header, so
no patient data of the original header is sent.
"""

import gzip
import itertools
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from pyro_stitchnet.data.scans.nifti_geometry import NiftiGeometry
from pyro_stitchnet.viewer.results import ScanResult

__all__ = [
    "LAYERS", "Layer", "LayerGrid", "available_layers", "encode", "full_grid", "lung_grid",
]  # fmt: skip

MARGIN = 15.0
"""Margin around the lungs, mm."""

SLAB = 32  # slices read at a time


@dataclass(frozen=True)
class Layer:
    """Quantisation of a volume.

    Attributes:
        steps: quantisation steps per unit: 1 for HU and labels, 1,000 for probabilities and nats.
        dtype: of the quantised values.
    """

    steps: int
    dtype: type[np.int16 | np.uint8]


LAYERS: Mapping[str, Layer] = {
    "scan": Layer(1, np.int16),
    "healthy": Layer(1, np.int16),
    "labels": Layer(1, np.uint8),
    "uncertainty": Layer(1000, np.int16),
    "lesion_probability": Layer(1000, np.int16),
}
"""The volumes that a page can show, by the name of the map."""


@dataclass(frozen=True)
class LayerGrid:
    """The voxels of a scan that are shown: start, start + step, ... before stop.

    Attributes:
        shape: of the scan (I, J, K), in voxels.
        start: first voxel along each axis.
        stop: end of each axis, exclusive.
        step: distance of the shown voxels along each axis.
    """

    shape: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def whole(self) -> bool:
        """Whether every voxel is shown."""
        return self == LayerGrid(self.shape, (0, 0, 0), self.shape, (1, 1, 1))

    def thinned(self, spacing: tuple[float, ...], most: int) -> "LayerGrid":
        """A grid of at most ``most`` voxels, thinned along the axes with the finest spacing."""
        step = list(self.step)
        while self._size(step) > most:
            finest = min(range(3), key=lambda axis: spacing[axis] * step[axis])
            step[finest] += 1
        return LayerGrid(self.shape, self.start, self.stop, tuple(step))

    def _size(self, step: list[int]) -> int:
        return int(np.prod([len(range(*s)) for s in zip(self.start, self.stop, step, strict=True)]))

    def slices(self) -> tuple[slice, ...]:
        """The grid as an index into the scan's array."""
        return tuple(map(slice, self.start, self.stop, self.step))

    def affine(self, affine: np.ndarray) -> np.ndarray:
        """The affine of this grid, from the scan's affine (4, 4)."""
        moved = np.diag([*self.step, 1.0])
        moved[:3, 3] = self.start
        return np.asarray(affine @ moved)


def available_layers(result: ScanResult) -> list[str]:
    """The names of a scan's layers."""
    return [name for name in LAYERS if result.has_map(name)]


def full_grid(result: ScanResult, most: int) -> LayerGrid:
    """A grid over the whole scan of at most ``most`` voxels."""
    image = _open(result, "labels")
    shape, spacing = image.shape, tuple(voxel_sizes(_affine(image)))
    return LayerGrid(shape, (0, 0, 0), shape, (1, 1, 1)).thinned(spacing, most)


def lung_grid(result: ScanResult, most: int) -> LayerGrid:
    """A grid over the lungs and a margin of at most ``most`` voxels.

    A scan without lungs is shown whole.
    """
    image = _open(result, "labels")
    spacing = tuple(voxel_sizes(_affine(image)))
    lungs = [np.zeros(n, bool) for n in image.shape]
    for first, slab in _slabs(image):
        inside = slab > 0
        lungs[0] |= inside.any((1, 2))
        lungs[1] |= inside.any((0, 2))
        lungs[2][first : first + slab.shape[2]] = inside.any((0, 1))
    if not lungs[0].any():
        return full_grid(result, most)
    start, stop = [], []
    for axis, (lung, mm) in enumerate(zip(lungs, spacing, strict=True)):
        indices, margin = np.flatnonzero(lung), int(np.ceil(MARGIN / mm))
        start.append(max(0, int(indices[0]) - margin))
        stop.append(min(image.shape[axis], int(indices[-1]) + 1 + margin))
    grid = LayerGrid(image.shape, tuple(start), tuple(stop), (1, 1, 1))
    return grid.thinned(spacing, most)


def encode(result: ScanResult, name: str, grid: LayerGrid, *, compress: bool) -> bytes:
    """Encode a layer of a scan as a NIfTI file.

    Args:
        result: of the scan.
        name: a key of :data:`LAYERS`.
        grid: the voxels to include.
        compress: whether to gzip the file.

    Returns:
        The file, with int16 or uint8 values and the slope that restores the original unit.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the scan has no such layer, or the file is damaged, or not a volume of the
            grid's shape.
    """
    layer, image = LAYERS[name], _open(result, name)
    if image.shape != grid.shape:
        raise ValueError(
            f"{image.get_filename()}: {image.shape} voxels, but the labels have {grid.shape}; "
            "remove the folder and run `stitchnet predict` again"
        )
    limits, (rows, columns, slices) = np.iinfo(layer.dtype), grid.slices()
    kept = range(slices.start, slices.stop, slices.step)
    parts = []
    for first, slab in _slabs(image):
        in_slab = [k - first for k in kept if first <= k < first + slab.shape[2]]
        part = slab[rows, columns][..., in_slab].astype(np.float32) * layer.steps
        part = np.nan_to_num(np.rint(part), nan=0.0, posinf=limits.max, neginf=limits.min)
        parts.append(np.clip(part, limits.min, limits.max).astype(layer.dtype))
    encoded = nib.Nifti1Image(np.concatenate(parts, axis=2), grid.affine(_affine(image)))
    encoded.header.set_slope_inter(1 / layer.steps, 0)
    encoded.header.set_xyzt_units("mm")
    data: bytes = encoded.to_bytes()
    return gzip.compress(data, 6, mtime=0) if compress else data


def _open(result: ScanResult, name: str) -> nib.Nifti1Image:
    path = result.map(name)
    try:
        # Slabs are read in order: a file that stays open is decompressed only once.
        image = nib.load(path, keep_file_open=True)
    except nib.filebasedimages.ImageFileError as error:
        raise ValueError(f"{path}: not a readable NIfTI file ({error})") from error
    assert isinstance(image, nib.Nifti1Image)  # by the ending of its name
    if len(image.shape) != 3:
        raise ValueError(f"{path}: shape {image.shape}, but a volume has three axes")
    return image


def _affine(image: nib.Nifti1Image) -> np.ndarray:
    """The affine in mm; a map states its geometry as its scan does."""
    return NiftiGeometry.of(image.header).affine


def _slabs(image: nib.Nifti1Image) -> Iterator[tuple[int, np.ndarray]]:
    """Slabs of consecutive slices, each with the index of its first slice."""
    edges = range(0, image.shape[2] + SLAB, SLAB)
    for first, stop in itertools.pairwise(edges):
        try:
            yield first, np.asanyarray(image.dataobj[..., first:stop])
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{image.get_filename()}: damaged ({error}); "
                "remove the folder and run `stitchnet predict` again"
            ) from error
