"""Measurements of a segmented scan: volumes, shares, sides, thirds and a severity score.

All are computed from label counts. The affine gives left and right; the sagittal plane between the
lungs with the least lung separates them. Thirds are of the height of the lungs, from the first to
the last slice with lung.

The severity score follows Pan et al. (Radiology 295:715, 2020), where each of the five lobes scores
0 without disease, 1 below 5 % of its volume, 2 up to 25 %, 3 below 50 %, 4 up to 75 % and 5 above:
25 in total. There a reader identifies the lobes; StitchNet does not segment them. Here the five
regions are the thirds of the right lung's height and the halves of the left lung's. Scores resemble
the published ones, but are not comparable with them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY, LABELS

__all__ = [
    "Tally", "measurements_of", "separating_column", "severity", "split_by_height",
    "voxel_ml",
]  # fmt: skip

TISSUES: Mapping[str, tuple[int, ...]] = {
    "lung": (HEALTHY, GGO, CONSOLIDATION),
    "ggo": (GGO,),
    "consolidation": (CONSOLIDATION,),
    "infection": (GGO, CONSOLIDATION),
}
"""The labels of each measured tissue; "lung" includes its lesions."""

# Smallest shares of a region, in percent, that score 2, 3, 4, 5; 25 and 75 % get the lower score.
_SCORES = (5.0, np.nextafter(25.0, 26.0), 50.0, np.nextafter(75.0, 76.0))
_REGIONS = {"right": 3, "left": 2}  # regions per lung, in place of its lobes


@dataclass
class Tally:
    """Counts of labelled voxels, filled slice by slice.

    Attributes:
        counts: voxels of each label per slice and column, int64 (S, C, K); axial slices from feet
            to head, columns from the patient's right to left.
        hounsfield: sum of HU over the voxels of each label, (K,).
        edges: voxels of lung in the first and last row and column, summed over slices.
    """

    counts: np.ndarray
    hounsfield: np.ndarray
    edges: int = 0

    @classmethod
    def empty(cls, slices: int, columns: int) -> "Tally":
        """A tally of zero counts."""
        return cls(np.zeros((slices, columns, len(LABELS)), np.int64), np.zeros(len(LABELS)))

    def add(self, index: int, labels: np.ndarray, grey: np.ndarray) -> None:
        """Count one slice.

        Args:
            index: of the slice, from the feet.
            labels: (R, C).
            grey: HU, (R, C).
        """
        lung = labels != BACKGROUND
        columns = np.flatnonzero(lung.any(0))
        self.counts[index, :, BACKGROUND] = len(labels)
        if not len(columns):
            return
        self.edges += int(lung[[0, -1]].sum() + lung[:, [0, -1]].sum())
        box = np.s_[:, columns[0] : columns[-1] + 1]
        for label in range(1, len(LABELS)):
            mask = labels[box] == label
            self.counts[index][box[1], label] = mask.sum(0)
            self.hounsfield[label] += grey[box][mask].sum(dtype=np.float64)
        self.counts[index, :, BACKGROUND] -= self.counts[index, :, 1:].sum(-1)

    @property
    def lung(self) -> np.ndarray:
        """Voxels of lung per slice and column, (S, C)."""
        total: np.ndarray = self.counts[..., 1:].sum(-1)
        return total


def voxel_ml(affine: np.ndarray) -> float:
    """Volume of a voxel in ml; correct for a tilted gantry too."""
    return float(abs(np.linalg.det(affine[:3, :3]))) / 1000


def measurements_of(tally: Tally, ml: float | None, *, hounsfield: bool = True) -> dict[str, Any]:
    """Compute all measurements from counted labels.

    Args:
        tally: the counts.
        ml: volume of a voxel; None if the spacing is unknown, which makes all volumes None.
        hounsfield: whether the summed grey values are HU.

    Returns:
        ``volumes_ml`` and ``percent_of_lung`` of :data:`TISSUES`; the same in ``sides`` for left
        and right, and in ``thirds`` for upper, middle and lower; ``severity_score``; ``mean_hu`` of
        healthy lung, GGO and consolidation. Undefined values are None.
    """
    right = np.arange(tally.counts.shape[1]) < separating_column(tally.lung.sum(0))
    sides = {"left": tally.counts[:, ~right].sum(1), "right": tally.counts[:, right].sum(1)}
    whole = sides["left"] + sides["right"]  # (S, K)
    parts = split_by_height(whole, 3)
    thirds = dict(zip(("lower", "middle", "upper"), parts, strict=True))
    counts = whole.sum(0)
    means = {
        LABELS[k]: _rounded(tally.hounsfield[k] / counts[k]) if hounsfield and counts[k] else None
        for k in range(1, len(LABELS))
    }
    return {
        **_amounts(counts, ml),
        "sides": {name: _amounts(part.sum(0), ml) for name, part in sides.items()},
        "thirds": {name: _amounts(thirds[name], ml) for name in ("upper", "middle", "lower")},
        "severity_score": severity(sides),
        "mean_hu": means,
    }


def severity(sides: Mapping[str, np.ndarray]) -> int | None:
    """The severity score of this module's docstring, 0 to 25.

    Args:
        sides: voxels of each label per slice from the feet, (S, K), for "left" and "right".

    Returns:
        None if fewer than three slices contain lung.
    """
    if (np.sum([side[:, 1:] for side in sides.values()], (0, 2)) > 0).sum() < 3:
        return None
    regions = [part for name, n in _REGIONS.items() for part in split_by_height(sides[name], n)]
    return sum(_score(_percent(part, TISSUES["infection"])) for part in regions)


def separating_column(profile: np.ndarray) -> int:
    """The column between the right and the left lung: the one with the least lung.

    Only the middle half of the lungs' width is searched; of equal columns the most central is
    taken.

    Args:
        profile: voxels of lung per column, from the patient's right to left.
    """
    columns = np.flatnonzero(profile)
    if not len(columns):
        return len(profile) // 2
    first, last = columns[0], columns[-1] + 1
    quarter = (last - first) // 4
    between = profile[first + quarter : last - quarter]
    least = np.flatnonzero(between == between.min())
    centre = (last - first) / 2 - quarter
    return int(first + quarter + least[np.abs(least + 0.5 - centre).argmin()])


def split_by_height(slices: np.ndarray, n: int) -> list[np.ndarray]:
    """Sum counts over ``n`` parts of equal height of the lung, from the feet.

    A slice across the edge of two parts is divided between them in proportion.

    Args:
        slices: counts per slice and label, (S, K).
        n: number of parts.

    Returns:
        The sums of each part, (K,).
    """
    rows = np.flatnonzero(slices[:, 1:].any(1))
    if not len(rows):
        return [np.zeros(slices.shape[1])] * n
    lung = slices[rows[0] : rows[-1] + 1]
    below = np.vstack([np.zeros(slices.shape[1]), lung.cumsum(0)])  # a row per edge of slices
    edges = np.linspace(0, len(lung), n + 1)
    at = [np.interp(edges, np.arange(len(below)), column) for column in below.T]
    return list(np.diff(np.stack(at, 1), axis=0))


def _amounts(counts: np.ndarray, ml: float | None) -> dict[str, Any]:
    volumes = {
        name: None if ml is None else _rounded(ml * counts[list(labels)].sum(), 3)
        for name, labels in TISSUES.items()
    }
    shares = {
        name: _rounded(share, 3) if (share := _percent(counts, labels)) is not None else None
        for name, labels in TISSUES.items()
        if name != "lung"
    }
    return {"volumes_ml": volumes, "percent_of_lung": shares}


def _percent(counts: np.ndarray, labels: Iterable[int]) -> float | None:
    lung = counts[list(TISSUES["lung"])].sum()
    return float(100 * counts[list(labels)].sum() / lung) if lung else None


def _score(percent: float | None) -> int:
    return 0 if not percent else 1 + int(np.searchsorted(_SCORES, percent, side="right"))


def _rounded(value: float, digits: int = 1) -> float:
    return round(float(value), digits)
