"""The maps of one scan: what the model says of every voxel, slice by slice into files."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_stitchnet.data.preprocessing.steps import window
from pyro_stitchnet.data.scans.nifti import Encoding
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY, LABELS
from pyro_stitchnet.posterior import entropy
from pyro_stitchnet.posterior.decision import decide, without_specks
from pyro_stitchnet.prediction.measurements import Tally
from pyro_stitchnet.prediction.segmenter import Options, Segmented, Segmenter

__all__ = ["ENCODINGS", "SliceMaps", "Totals", "each_slice", "make_maps"]

ENCODINGS: Mapping[str, Encoding] = {
    "labels": Encoding(np.uint8),
    "lesion_probability": Encoding(np.uint8, 1 / 255),
    "uncertainty": Encoding(np.uint8, math.log(len(LABELS)) / 255),
    "scan": Encoding(np.int16),
    "healthy": Encoding(np.int16),
}
"""How each map is stored."""


@dataclass
class Totals:
    """What the slices of one scan came to.

    Attributes:
        tally: counts of the labels.
        segmented: how many slices the model was asked about.
        sure: sum over voxels of lung of the probability of their label.
        doubt: of each slice, the sum over its pixels of the entropy, nats, (S,).
    """

    tally: Tally
    doubt: np.ndarray
    segmented: int = 0
    sure: float = 0.0

    @property
    def confidence(self) -> float | None:
        """Mean over the lung of the probability of the label given; None without lung."""
        lung = int(self.tally.lung.sum())
        return self.sure / lung if lung else None


@dataclass(frozen=True)
class SliceMaps:
    """Every map of one slice, (R, C).

    Attributes:
        answer: what the model said; None of a slice that it was not asked about.
        maps: by name, keys of :data:`ENCODINGS`.
    """

    answer: Segmented | None
    maps: Mapping[str, np.ndarray]


def each_slice(
    segmenter: Segmenter, stack: Stack, *, styles: bool, stacked: bool = True
) -> tuple[Totals, Iterator[SliceMaps]]:
    """Segment a scan slice by slice.

    Args:
        segmenter: the model.
        stack: the scan.
        styles: whether to draw the styles, without which the healthy map is the scan's.
        stacked: whether neighbouring slices are neighbours in the patient.

    Returns:
        The totals, whole when the slices are; and the slices from the feet, one for each of the
        stack.
    """
    tally = Tally.empty(len(stack), stack.slices[0].shape[1])
    totals = Totals(tally, np.zeros(len(stack)))

    def slices() -> Iterator[SliceMaps]:
        answers = segmenter.slices(stack, styles=styles, stacked=stacked)
        for index, answer in enumerate(_in_turn(answers, len(stack))):
            grey = stack.slices[index]
            maps, sure = _of_slice(segmenter, stack, grey, answer)
            totals.tally.add(index, maps["labels"], grey)
            if answer is not None:
                totals.segmented += 1
                totals.sure += sure
                totals.doubt[index] = maps["uncertainty"].sum(dtype=np.float64)
            yield SliceMaps(answer, maps)

    return totals, slices()


def make_maps(
    segmenter: Segmenter, stack: Stack, folder: Path, *, names: tuple[str, ...]
) -> tuple[Totals, dict[str, Spool]]:
    """Segment a scan into files of axial slices.

    Args:
        segmenter: the model.
        stack: the scan.
        folder: for the files.
        names: of the maps, keys of :data:`ENCODINGS`.

    Returns:
        The totals, and of each map the stored numbers.

    Raises:
        ValueError: all voxels are alike.
    """
    shape = stack.slices[0].shape
    spools = {name: Spool(folder / f"{name}.raw", shape, ENCODINGS[name].dtype) for name in names}
    totals, slices = each_slice(segmenter, stack, styles="healthy" in names)
    for one in slices:
        for name, spool in spools.items():
            spool.append(ENCODINGS[name](one.maps[name]))
    return totals, spools


def _in_turn(answers: Iterator[Segmented], n: int) -> Iterator[Segmented | None]:
    """An answer for every slice, None for those left out."""
    following = next(answers, None)
    for index in range(n):
        if following is None or following.index != index:
            yield None
        else:
            yield following
            following = next(answers, None)


def _of_slice(
    segmenter: Segmenter, stack: Stack, grey: np.ndarray, answer: Segmented | None
) -> tuple[dict[str, np.ndarray], float]:
    """Every map of one slice, and the sum over its lung of the labels' probabilities."""
    steps = segmenter.preprocessing
    low, high = steps.window
    shown = window(grey, *steps.limits(stack)) * (high - low) + low
    made: dict[str, np.ndarray] = {
        "labels": np.zeros(grey.shape, np.uint8),
        "lesion_probability": np.zeros(grey.shape, np.float32),
        "uncertainty": np.zeros(grey.shape, np.float32),
        "scan": shown,
        "healthy": shown,
    }
    if answer is None:
        return made, 0.0
    box, p = answer.covered()
    probabilities = _batch_of_one(p)
    labels = _labels(answer, probabilities, segmenter.options)
    made["labels"][box] = labels
    made["lesion_probability"][box] = p[GGO] + p[CONSOLIDATION]
    made["uncertainty"][box] = entropy(probabilities)[0].numpy()
    if answer.styles is not None:
        _, style = answer.grid.covered(answer.styles[HEALTHY], order=1)
        lesion = labels >= GGO
        made["healthy"] = shown.copy()
        made["healthy"][box][lesion] = style[lesion] * (high - low) + low
    return made, float(np.take_along_axis(p, labels[None], 0)[0][labels > 0].sum(dtype=np.float64))


def _labels(answer: Segmented, p: Tensor, asked: Options) -> np.ndarray:
    """The label of every pixel that the picture covers, (R, C), by its probabilities there."""
    if asked.least_patch:  # specks are sought on the picture: drawn larger, soft ones shrink
        picture = torch.from_numpy(answer.probabilities)[None]
        told = without_specks(picture, asked.decision, asked.least_patch)[0].numpy()
        p = _batch_of_one(answer.grid.covered(told, order=1)[1])
    return decide(p, asked.decision)[0].numpy()


def _batch_of_one(p: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(p))[None]
