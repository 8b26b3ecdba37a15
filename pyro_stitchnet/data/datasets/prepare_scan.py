"""One scan, or some, from their files to a shard of a dataset: what a worker does."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pyro_stitchnet.data.datasets.leakage import perceptual_hash
from pyro_stitchnet.data.datasets.shards import MANIFEST, write_shard
from pyro_stitchnet.data.preprocessing.steps import Preprocessing, Slice
from pyro_stitchnet.data.scans.readers import read_mask, read_volume
from pyro_stitchnet.data.scans.volume import Volume
from pyro_stitchnet.data.sources.base import Scan
from pyro_stitchnet.labels import ALL_LABELS, CONSOLIDATION, GGO, LABEL_RULES, LABELS

__all__ = ["Job", "Unit", "prepare_scan"]

Meanings = Mapping[int, frozenset[int]]


@dataclass(frozen=True)
class Job:
    """A scan to prepare.

    Attributes:
        source: name of its source.
        scan: what the source says about it.
        meanings: mask value -> the labels it allows.
        ruled: whether the user named the rule that they come from.
    """

    source: str
    scan: Scan
    meanings: Meanings
    ruled: bool = False

    @property
    def file(self) -> Path:
        """A path to name in a message."""
        image = self.scan.image
        return image if isinstance(image, Path) else image[0]


def prepare_scan(job: Job, preprocessing: Preprocessing) -> tuple[Volume, list[Slice]]:
    """Read and preprocess one scan.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is unreadable, its mask does not fit, or no slice has enough lung.
    """
    scan = job.scan
    volume = read_volume(scan.image, series=scan.series)
    slices = list(preprocessing(volume, _label_sets(job, volume), stacked=scan.stacked))
    if not slices:
        raise ValueError(
            f"{job.file}: no slice of {scan.name!r} has a lung field; is it a chest CT? If it is "
            "cropped to the lungs already, prepare it with --lungs none"
        )
    return volume, slices


@dataclass(frozen=True)
class Unit:
    """What one worker does at a time: the scans of one shard."""

    out: Path
    shard: int
    jobs: Sequence[Job]
    preprocessing: Preprocessing
    skip_bad: bool

    def __call__(self) -> None:
        """Prepare the scans and write the shard."""
        pictures: list[Slice] = []
        rows: list[dict[str, object]] = []
        skipped: list[dict[str, str]] = []
        for job in self.jobs:
            try:
                volume, slices = prepare_scan(job, self.preprocessing)
            except (ValueError, OSError) as error:
                if not self.skip_bad:
                    raise
                skipped.append({"scan": job.scan.name, "reason": str(error)})
                continue
            rows += _rows(job, volume, slices)
            pictures += slices
        size = self.preprocessing.size
        stack = np.empty((len(pictures), 2, size, size), np.uint8)
        for i, picture in enumerate(pictures):
            stack[i] = np.round(picture.image * 255), picture.label_sets
        table = pd.DataFrame(rows, columns=list(MANIFEST))
        write_shard(
            self.out,
            self.shard,
            stack,
            table.assign(shard=self.shard, row=np.arange(len(table))),
            pd.DataFrame(skipped, columns=["scan", "reason"]),
        )


def _label_sets(job: Job, volume: Volume) -> np.ndarray:
    """The labels that each voxel may have, as bits, on the scan's grid."""
    scan = job.scan
    sets = np.full(volume.voxels.shape, ALL_LABELS, np.uint8)
    if scan.everywhere is not None:
        sets[:] = _bits(scan.everywhere)
    if isinstance(scan.mask, Path):
        sets[:] = _meant(read_mask(scan.mask, like=volume), job, scan.mask)
    elif scan.mask is not None:
        for index, path in enumerate(scan.mask):
            if path is not None:
                one = replace(volume, voxels=volume.voxels[index : index + 1])
                sets[index] = _meant(read_mask(path, like=one), job, path)[0]
    return sets


def _meant(mask: np.ndarray, job: Job, path: Path) -> np.ndarray:
    """A mask's values as bits."""
    table = np.zeros(256, np.uint8)
    for value, labels in job.meanings.items():
        table[value] = _bits(labels)
    strange = np.setdiff1d(mask, list(job.meanings)).tolist()
    if strange:
        raise ValueError(
            f"{path}: the mask holds {strange}, but here {sorted(job.meanings)} have a meaning; "
            f"name another labelling rule (FOLDER@RULE: {', '.join(LABEL_RULES)}) or mend the mask"
        )
    return table[mask]


def _bits(labels: Iterable[int]) -> int:
    return sum(1 << label for label in labels)


def _rows(job: Job, volume: Volume, slices: Sequence[Slice]) -> Iterator[dict[str, object]]:
    """The slices' rows of the manifest, but for where they are stored."""
    scan = job.scan
    single = len(volume.axial()) == 1
    between, row, column = volume.axial_spacing()
    for picture in slices:
        sets = np.unique(picture.label_sets).tolist()
        names = ["+".join(str(k) for k in range(len(LABELS)) if bits >> k & 1) for bits in sets]
        yield {
            "slice": scan.name if single else f"{scan.name}/{picture.index:04d}",
            "patient": scan.patient,
            "study": scan.study or volume.study,
            "scan": scan.name,
            "index": picture.index,
            "source": job.source,
            "file": str(job.file),
            "hounsfield": volume.hounsfield,
            "slice_mm": between,
            "row_mm": row,
            "column_mm": column,
            **asdict(picture.grid),
            "lung": float(picture.lung.mean()),
            "label_sets": " ".join(sorted(names)),
            "labelled": sets != [ALL_LABELS],
            "complete": all(bits.bit_count() == 1 for bits in sets),
            "has_ggo": 1 << GGO in sets,
            "has_consolidation": 1 << CONSOLIDATION in sets,
            "hash": perceptual_hash(picture.image),
        }
