"""What a report says in numbers: volumes, shares, sides, thirds and severity, from labels alone.

Left and right are told by the scan's affine, and parted by the sagittal plane between the lungs
that has the least lung. Thirds are of the height of the lungs, first to last slice with lung.

The severity score is that of Pan et al. (Radiology 295:715, 2020): each of the five lobes scores 0
where it is free of disease, 1 below 5 % of its volume, 2 to 25 %, 3 below 50 %, 4 to 75 % and 5
above, 25 in all. There the lobes are a reader's. StitchNet has no lobes: here the five regions are
the thirds of the right lung's height and the halves of the left's, so that scores resemble the
published ones, and are not to be taken for them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_stitchnet.data.scans.volume import to_axial
from pyro_stitchnet.labels import BACKGROUND, CONSOLIDATION, GGO, HEALTHY, LABELS

__all__ = ["Tally", "figures", "severity"]

TISSUES: Mapping[str, tuple[int, ...]] = {
    "lung": (HEALTHY, GGO, CONSOLIDATION),
    "ggo": (GGO,),
    "consolidation": (CONSOLIDATION,),
    "infection": (GGO, CONSOLIDATION),
}
"""Labels of what volumes are given of; the lung has its lesions in it."""

# Shares of a region, in percent, from which on a score is 2, 3, 4, 5: at 25 and 75 it is the lower.
_SCORES = (5.0, np.nextafter(25.0, 26.0), 50.0, np.nextafter(75.0, 76.0))
_REGIONS = {"right": 3, "left": 2}  # how many of each lung, for its lobes


@dataclass
class Tally:
    """Counts of labelled voxels, from which all figures follow; filled slice by slice.

    Attributes:
        counts: voxels of each label in each column of each slice, int64 (S, C, K); axial slices
            from feet to head, columns from the patient's right to left.
        hounsfield: sums of HU over the voxels of each label, (K,).
        edges: voxels of lung on the first and last row and column, summed over slices.
    """

    counts: np.ndarray
    hounsfield: np.ndarray
    edges: int = 0

    @classmethod
    def empty(cls, slices: int, columns: int) -> "Tally":
        """Nothing counted yet."""
        return cls(np.zeros((slices, columns, len(LABELS)), np.int64), np.zeros(len(LABELS)))

    def add(self, index: int, labels: np.ndarray, grey: np.ndarray) -> None:
        """Count one slice.

        Args:
            index: of the slice, from the feet.
            labels: (R, C).
            grey: HU (R, C).
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
        """Voxels of lung in each slice and column, (S, C)."""
        total: np.ndarray = self.counts[..., 1:].sum(-1)
        return total


def figures(labels: np.ndarray, grey: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    """All figures of a segmented scan.

    Args:
        labels: 0 to 3, (I, J, K).
        grey: Hounsfield units, (I, J, K).
        affine: of both, voxels to mm, (4, 4).

    Returns:
        See :func:`figures_of`.
    """
    turned, units = to_axial(labels, affine), to_axial(grey, affine)
    tally = Tally.empty(len(turned), turned.shape[2])
    for index, (one, hu) in enumerate(zip(turned, units, strict=True)):
        tally.add(index, one, hu)
    return figures_of(tally, voxel_ml(affine))


def voxel_ml(affine: np.ndarray) -> float:
    """Volume of a voxel, in ml; of a tilted gantry's too."""
    return float(abs(np.linalg.det(affine[:3, :3]))) / 1000


def figures_of(tally: Tally, ml: float | None, *, hounsfield: bool = True) -> dict[str, Any]:
    """All figures of counted labels.

    Args:
        tally: the counts.
        ml: volume of a voxel; None where it is unknown, and so are volumes.
        hounsfield: whether the summed grey values are HU.

    Returns:
        ``volumes_ml`` and ``percent_of_lung`` of :data:`TISSUES`; both again in ``sides`` for
        left and right, and in ``thirds`` for upper, middle and lower; ``severity_score``;
        ``mean_hu`` of healthy lung, GGO and consolidation. None stands for what is not defined.
    """
    right = np.arange(tally.counts.shape[1]) < middle(tally.lung.sum(0))
    sides = {"left": tally.counts[:, ~right].sum(1), "right": tally.counts[:, right].sum(1)}
    whole = sides["left"] + sides["right"]  # (S, K)
    thirds = dict(zip(("lower", "middle", "upper"), parted(whole, 3), strict=True))
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
    """The score of 0 to 25 that this module's head describes.

    Args:
        sides: voxels of each label in each slice from the feet, (S, K), of "left" and "right".

    Returns:
        None where the lungs show on fewer than three slices.
    """
    if (np.sum([side[:, 1:] for side in sides.values()], (0, 2)) > 0).sum() < 3:
        return None
    regions = [part for name, n in _REGIONS.items() for part in parted(sides[name], n)]
    return sum(_score(_percent(part, TISSUES["infection"])) for part in regions)


def middle(profile: np.ndarray) -> int:
    """The column that parts the right lung from the left: that with least lung between them.

    Args:
        profile: voxels of lung in each column, from the patient's right to left.
    """
    seen = np.flatnonzero(profile)
    if not len(seen):
        return len(profile) // 2
    first, last = seen[0], seen[-1] + 1
    quarter = (last - first) // 4
    between = profile[first + quarter : last - quarter]
    least = np.flatnonzero(between == between.min())
    centre = (last - first) / 2 - quarter
    return int(first + quarter + least[np.abs(least + 0.5 - centre).argmin()])


def parted(slices: np.ndarray, n: int) -> list[np.ndarray]:
    """Counts of slices (S, K) summed over ``n`` parts of the lung's height, from the feet, (K,).

    A slice on an edge between two parts gives to each its share.
    """
    seen = np.flatnonzero(slices[:, 1:].any(1))
    if not len(seen):
        return [np.zeros(slices.shape[1])] * n
    lung = slices[seen[0] : seen[-1] + 1]
    below = np.vstack([np.zeros(slices.shape[1]), lung.cumsum(0)])  # a row an edge of a slice
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
