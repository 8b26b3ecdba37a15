"""The work of one process during preparation: from the files of scans to a shard of a dataset."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pyro_stitchnet.data.datasets.leakage import perceptual_hash
from pyro_stitchnet.data.datasets.shards import MANIFEST, write_shard
from pyro_stitchnet.data.preprocessing.steps import PreparedSlice, Preprocessing, to_bytes
from pyro_stitchnet.data.scans.masks import read_mask
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.data.sources.base import ScanFiles
from pyro_stitchnet.labels import ALL_LABELS, CONSOLIDATION, GGO, LABEL_RULES, LABELS

__all__ = ["Job", "Unit", "prepare_scan"]

Rule = Mapping[int, frozenset[int]]


@dataclass(frozen=True)
class Job:
    """A scan to prepare.

    Attributes:
        source: name of its source.
        scan: its files and labels.
        rule: mask value -> the labels it allows.
        rule_given: whether the user named the rule.
    """

    source: str
    scan: ScanFiles
    rule: Rule
    rule_given: bool = False

    @property
    def file(self) -> Path:
        """A path to name in a message."""
        image = self.scan.image
        return image if isinstance(image, Path) else image[0]


def prepare_scan(
    job: Job, preprocessing: Preprocessing, spool: Path | None = None
) -> Iterator[tuple[dict[str, object], np.ndarray]]:
    """Read and preprocess one scan.

    Args:
        job: the scan.
        preprocessing: the steps.
        spool: a file for the scan's slices, see
            :func:`~pyro_stitchnet.data.scans.streaming.read_stack`.

    Yields:
        For each slice its row of the manifest, without its place in a shard, and its grey values
        and label sets, uint8 (2, S, S).

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is unreadable, its mask does not fit, or no slice has enough lung.
    """
    scan = job.scan
    stack = read_stack(scan.image, spool, series=scan.series)
    empty = True
    for one in preprocessing.slices(stack, _label_sets(job, stack), stacked=scan.stacked):
        empty = False
        yield _row(job, stack, one), np.stack([to_bytes(one.image), one.label_sets])
    if empty:
        raise ValueError(
            f"{job.file}: no slice of {scan.name!r} has a lung field; is it a chest CT? If it is "
            "cropped to the lungs already, prepare it with --lungs none"
        )


@dataclass(frozen=True)
class Unit:
    """A unit of work: the scans of one shard.

    Attributes:
        out: the dataset's folder.
        shard: number of the shard.
        jobs: the scans.
        preprocessing: the steps.
        skip_bad: whether to skip scans that cannot be prepared.
    """

    out: Path
    shard: int
    jobs: Sequence[Job]
    preprocessing: Preprocessing
    skip_bad: bool

    def __call__(self) -> None:
        """Prepare the scans and write the shard."""
        slices: list[np.ndarray] = []
        rows: list[dict[str, object]] = []
        skipped: list[dict[str, str]] = []
        shards = self.out / "shards"
        # `prepare` removes folders of this name at its end, in case this process is killed.
        with tempfile.TemporaryDirectory(prefix=".spool.", suffix=".tmp", dir=shards) as work:
            for job in self.jobs:
                try:
                    spool = Path(work) / "slices.raw"
                    prepared = list(prepare_scan(job, self.preprocessing, spool))
                except (ValueError, OSError) as error:
                    disk_full = isinstance(error, OSError) and str(error.filename).startswith(work)
                    if disk_full or not self.skip_bad:
                        raise
                    skipped.append({"scan": job.scan.name, "reason": str(error)})
                    continue
                rows += [row for row, _ in prepared]
                slices += [one for _, one in prepared]
        size = self.preprocessing.size
        table = pd.DataFrame(rows, columns=list(MANIFEST))
        write_shard(
            self.out,
            self.shard,
            np.stack(slices) if slices else np.empty((0, 2, size, size), np.uint8),
            table.assign(shard=self.shard, row=np.arange(len(table))),
            pd.DataFrame(skipped, columns=["scan", "reason"]),
        )


def _label_sets(job: Job, stack: Stack) -> np.ndarray | None:
    """Return the labels that each pixel may have, as bits, (S, R, C); None without labels."""
    scan = job.scan
    if isinstance(scan.mask, Path):
        return _bits_of(read_mask(scan.mask, like=stack), job, scan.mask)
    if scan.mask is None and scan.everywhere is None:
        return None
    shape = (len(stack), *stack.slices[0].shape)
    if scan.mask is None:
        return np.broadcast_to(np.uint8(_bits(scan.everywhere or ())), shape)
    sets = np.full(shape, ALL_LABELS, np.uint8)
    one = replace(stack, shape=(1, *shape[1:]))
    for index, path in enumerate(scan.mask):
        if path is not None:
            sets[index] = _bits_of(read_mask(path, like=one), job, path)[0]
    return sets


def _bits_of(mask: np.ndarray, job: Job, path: Path) -> np.ndarray:
    """Return a mask's label sets, as bits."""
    table = np.zeros(256, np.uint8)
    for value, labels in job.rule.items():
        table[value] = _bits(labels)
    unknown = np.setdiff1d(mask, list(job.rule)).tolist()
    if unknown:
        raise ValueError(
            f"{path}: the mask holds {unknown}, but the labelling rule has {sorted(job.rule)}; "
            f"name another rule (FOLDER@RULE: {', '.join(LABEL_RULES)}) or correct the mask"
        )
    return table[mask]


def _bits(labels: Iterable[int]) -> int:
    return sum(1 << label for label in labels)


def _row(job: Job, stack: Stack, one: PreparedSlice) -> dict[str, object]:
    """Return a slice's row of the manifest, without its place in a shard."""
    scan = job.scan
    between, row, column = stack.spacing
    sets = np.unique(one.label_sets).tolist()
    names = ["+".join(str(k) for k in range(len(LABELS)) if bits >> k & 1) for bits in sets]
    return {
        "slice": scan.name if len(stack) == 1 else f"{scan.name}/{one.index:04d}",
        "patient": scan.patient,
        "study": scan.study or stack.study,
        "scan": scan.name,
        "index": one.index,
        "source": job.source,
        "file": str(job.file),
        "hounsfield": stack.hounsfield,
        "slice_mm": between,
        "row_mm": row,
        "column_mm": column,
        **asdict(one.placement),
        "lung": float(one.lung.mean()),
        "label_sets": " ".join(sorted(names)),
        "labelled": sets != [ALL_LABELS],
        "complete": all(bits.bit_count() == 1 for bits in sets),
        "has_ggo": 1 << GGO in sets,
        "has_consolidation": 1 << CONSOLIDATION in sets,
        "hash": perceptual_hash(one.image),
    }
