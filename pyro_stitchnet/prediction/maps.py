"""The maps of one scan: labels, probabilities and uncertainty of every voxel, slice by slice."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_stitchnet.data.preprocessing.fill import without_fill
from pyro_stitchnet.data.preprocessing.steps import window
from pyro_stitchnet.data.scans.nifti import Encoding
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY, LABELS
from pyro_stitchnet.posterior import ReadOutOptions, entropy
from pyro_stitchnet.posterior.decision import decide, without_specks
from pyro_stitchnet.prediction.measurements import Tally
from pyro_stitchnet.prediction.slice_segmenter import SliceResult, SliceSegmenter

__all__ = ["ENCODINGS", "SliceMaps", "Totals", "make_maps", "slice_maps"]

ENCODINGS: Mapping[str, Encoding] = {
    "labels": Encoding(np.uint8),
    "lesion_probability": Encoding(np.uint8, 1 / 255),
    "uncertainty": Encoding(np.uint8, math.log(len(LABELS)) / 255),
    "scan": Encoding(np.int16),
    "healthy": Encoding(np.int16),
}
"""Storage of each map."""


@dataclass
class Totals:
    """Sums over the slices of one scan.

    Attributes:
        tally: counts of the labels.
        entropy: sum over the pixels of each slice of the entropy of the labels, nats, (S,).
        segmented: number of slices that the model segmented.
        certainty: sum over the voxels of lung of the probability of their label.
    """

    tally: Tally
    entropy: np.ndarray
    segmented: int = 0
    certainty: float = 0.0

    @property
    def confidence(self) -> float | None:
        """Mean over the lung of the probability of the assigned label; None without lung."""
        lung = int(self.tally.lung.sum())
        return self.certainty / lung if lung else None


@dataclass(frozen=True)
class SliceMaps:
    """Every map of one slice, (R, C).

    Attributes:
        result: the model's output; None if the slice was left out for too little lung.
        maps: by name, keys of :data:`ENCODINGS`.
    """

    result: SliceResult | None
    maps: Mapping[str, np.ndarray]


def slice_maps(
    segmenter: SliceSegmenter, stack: Stack, *, styles: bool
) -> tuple[Totals, Iterator[SliceMaps]]:
    """Segment a scan slice by slice.

    Args:
        segmenter: the model.
        stack: the scan.
        styles: whether to compute the styles; without them the healthy map equals the scan.

    Returns:
        The totals, complete once the iterator is exhausted; and an iterator over all slices of the
        stack, from the feet.
    """
    stack = without_fill(stack, segmenter.preprocessing.limits(stack))
    tally = Tally.empty(len(stack), stack.slices[0].shape[1])
    totals = Totals(tally, np.zeros(len(stack)))

    def slices() -> Iterator[SliceMaps]:
        results = segmenter.slices(stack, styles=styles)
        for index, result in enumerate(_with_gaps(results, len(stack))):
            grey = stack.slices[index]
            maps, certainty = _maps_of_slice(segmenter, stack, grey, result)
            totals.tally.add(index, maps["labels"], grey)
            if result is not None:
                totals.segmented += 1
                totals.certainty += certainty
                totals.entropy[index] = maps["uncertainty"].sum(dtype=np.float64)
            yield SliceMaps(result, maps)

    return totals, slices()


def make_maps(
    segmenter: SliceSegmenter, stack: Stack, folder: Path, *, names: tuple[str, ...]
) -> tuple[Totals, dict[str, Spool]]:
    """Segment a scan into files of axial slices.

    Args:
        segmenter: the model.
        stack: the scan.
        folder: for the files.
        names: of the maps, keys of :data:`ENCODINGS`.

    Returns:
        The totals, and the encoded slices of each map.

    Raises:
        ValueError: all voxels of the scan are equal.
    """
    shape = stack.slices[0].shape
    spools = {name: Spool(folder / f"{name}.raw", shape, ENCODINGS[name].dtype) for name in names}
    totals, slices = slice_maps(segmenter, stack, styles="healthy" in names)
    for one in slices:
        for name, spool in spools.items():
            spool.append(ENCODINGS[name](one.maps[name]))
    return totals, spools


def _with_gaps(results: Iterator[SliceResult], n: int) -> Iterator[SliceResult | None]:
    """A result for each of ``n`` slices; None for those left out."""
    following = next(results, None)
    for index in range(n):
        if following is None or following.index != index:
            yield None
        else:
            yield following
            following = next(results, None)


def _maps_of_slice(
    segmenter: SliceSegmenter, stack: Stack, grey: np.ndarray, result: SliceResult | None
) -> tuple[dict[str, np.ndarray], float]:
    """Every map of one slice, and the sum over its lung of the labels' probabilities."""
    steps = segmenter.preprocessing
    low, high = steps.window
    windowed = window(grey, *steps.limits(stack)) * (high - low) + low
    maps: dict[str, np.ndarray] = {
        "labels": np.zeros(grey.shape, np.uint8),
        "lesion_probability": np.zeros(grey.shape, np.float32),
        "uncertainty": np.zeros(grey.shape, np.float32),
        "scan": windowed,
        "healthy": windowed,
    }
    if result is None:
        return maps, 0.0
    box, p = result.covered()
    batch = _batch_of_one(p)
    decided = _decided(result, batch, segmenter.options)
    labels = decide(decided, segmenter.options.decision)[0].numpy()
    maps["labels"][box] = labels
    maps["lesion_probability"][box] = p[GGO] + p[CONSOLIDATION]
    maps["uncertainty"][box] = entropy(batch)[0].numpy()
    if result.styles is not None:
        _, style = result.placement.covered(result.styles[HEALTHY], order=1)
        lesion = labels >= GGO
        maps["healthy"] = windowed.copy()
        maps["healthy"][box][lesion] = style[lesion] * (high - low) + low
    of_label = np.take_along_axis(decided[0].numpy(), labels[None], 0)[0]
    return maps, float(of_label[labels > 0].sum(dtype=np.float64))


def _decided(result: SliceResult, p: Tensor, options: ReadOutOptions) -> Tensor:
    """The probabilities that decide the labels: without patches that are too small, (1, K, R, C).

    Args:
        result: the model's output.
        p: its probabilities on the scan's pixels, (1, K, R, C).
        options: ``decision`` and ``least_patch``.
    """
    if not options.least_patch:
        return p
    # Patches are counted on the model's input: interpolation shrinks small patches.
    on_input = torch.from_numpy(result.probabilities)[None]
    despeckled = without_specks(on_input, options.decision, options.least_patch)[0].numpy()
    return _batch_of_one(result.placement.covered(despeckled, order=1)[1])


def _batch_of_one(p: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(p))[None]
