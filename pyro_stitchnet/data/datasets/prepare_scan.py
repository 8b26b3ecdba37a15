"""The work of one process during preparation: from the files of scans to a shard of a dataset."""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pyro_stitchnet.data.datasets.leakage import perceptual_hash
from pyro_stitchnet.data.datasets.shards import MANIFEST, write_shard
from pyro_stitchnet.data.preprocessing.steps import PreparedSlice, Preprocessing, to_bytes
from pyro_stitchnet.data.scans.endings import VOLUME_ENDINGS
from pyro_stitchnet.data.scans.masks import read_mask
from pyro_stitchnet.data.scans.not_scans import read_scan
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.sources.base import ScanFiles
from pyro_stitchnet.labels import ALL_LABELS, CONSOLIDATION, GGO, LABEL_RULES, LABELS, LESIONS
from pyro_stitchnet.runtime.text import escaped, identity

__all__ = ["Job", "Trial", "Unit", "prepare_scan"]

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
        ValueError: a file is unreadable or not a scan, its mask does not fit, or no slice has
            enough lung.
    """
    scan = job.scan
    if scan.fault:
        raise ValueError(scan.fault)
    stack = read_scan(scan.image, spool, series=scan.series)
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
        plan: digest of the plan of the dataset.
        files: digest of the state of the scans' files.
    """

    out: Path
    shard: int
    jobs: Sequence[Job]
    preprocessing: Preprocessing
    skip_bad: bool
    plan: str = ""
    files: str = ""

    def __call__(self) -> bool:
        """Prepare the scans and write the shard; return True."""
        slices: list[np.ndarray] = []
        rows: list[dict[str, object]] = []
        skipped: list[dict[str, str]] = []
        with _spool(self.out) as work:
            for job in self.jobs:
                try:
                    prepared = list(prepare_scan(job, self.preprocessing, Path(work) / "slices"))
                except Exception as error:
                    disk_full = isinstance(error, OSError) and str(error.filename).startswith(work)
                    named = isinstance(error, ValueError | OSError)
                    if disk_full or (named and not self.skip_bad):
                        raise
                    if not self.skip_bad:
                        raise ValueError(_reason(job, error)) from error
                    skipped.append({"scan": job.scan.name, "reason": _reason(job, error)})
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
            self.plan,
            self.files,
        )
        return True


@dataclass(frozen=True)
class Trial:
    """A scan, read and preprocessed only to see whether its process survives.

    Attributes:
        out: the dataset's folder.
        job: the scan.
        preprocessing: the steps.
    """

    out: Path
    job: Job
    preprocessing: Preprocessing

    def __call__(self) -> None:
        """Prepare the scan; errors are those of :class:`Unit` to report."""
        with _spool(self.out) as work, suppress(Exception):
            for _ in prepare_scan(self.job, self.preprocessing, Path(work) / "slices"):
                pass


def _spool(out: Path) -> "tempfile.TemporaryDirectory[str]":
    """Return a temporary folder; `prepare` removes it at its end, if this process is killed."""
    return tempfile.TemporaryDirectory(prefix=".spool.", suffix=".tmp", dir=out / "shards")


def _reason(job: Job, error: Exception) -> str:
    """Return why a scan cannot be prepared; the text names its file."""
    if isinstance(error, ValueError | OSError):
        return escaped(str(error))
    kind = ": ".join(filter(None, (type(error).__name__, str(error))))
    return escaped(f"{job.file}: cannot be prepared ({kind}); leave it out")


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


def _rule_sets(job: Job, index: int) -> set[int]:
    """Return the sets of labels, as bits, that a slice's pixels may be given."""
    scan = job.scan
    if scan.everywhere is not None:
        return {_bits(scan.everywhere)}
    mask = scan.mask[index] if isinstance(scan.mask, tuple) else scan.mask
    return {ALL_LABELS} if mask is None else {_bits(labels) for labels in job.rule.values()}


def _tells_labels(sets: Collection[int]) -> bool:
    return all(bits.bit_count() == 1 for bits in sets)


def _tells_infection(sets: Collection[int]) -> bool:
    lesions = _bits(LESIONS)
    return all(bits & lesions in (0, bits) for bits in sets)


def _names(sets: Iterable[int]) -> str:
    """Return sets of labels as text, such as "0 1 2+3"."""
    names = ("+".join(str(k) for k in range(len(LABELS)) if bits >> k & 1) for bits in sets)
    return " ".join(sorted(names))


def _warnings(stack: Stack) -> Iterator[str]:
    """Yield doubts about a scan's file; only volumes should state a spacing."""
    yield from stack.warnings
    if not stack.spaced and stack.source.name.lower().endswith(VOLUME_ENDINGS):
        yield "The file has no voxel spacing: its voxels are taken to be 1 mm apart."


def _row(job: Job, stack: Stack, one: PreparedSlice) -> dict[str, object]:
    """Return a slice's row of the manifest, without its place in a shard."""
    scan = job.scan
    between, row, column = stack.spacing
    sets = {bits for bits in range(1, ALL_LABELS + 1) if (one.label_sets == bits).any()}
    rule_sets = _rule_sets(job, one.index)
    # Where a mask leaves pixels unlabelled, its other values decide what it can separate.
    can_occur = rule_sets - {ALL_LABELS} | sets
    return {
        "slice": scan.name if len(stack) == 1 else f"{scan.name}/{one.index:04d}",
        "patient": scan.patient,
        "study": identity(scan.study or stack.study),
        "scan": scan.name,
        "index": one.index,
        "source": job.source,
        "file": escaped(str(job.file)),
        "hounsfield": stack.hounsfield,
        "warnings": " ".join(_warnings(stack)),
        "slice_mm": between,
        "row_mm": row,
        "column_mm": column,
        **asdict(one.placement),
        "lung": np.count_nonzero(one.lung) / one.lung.size,
        "rule_sets": _names(rule_sets),
        "label_sets": _names(sets),
        "labelled": sets != {ALL_LABELS},
        "complete": _tells_labels(can_occur),
        "tells_infection": _tells_infection(can_occur),
        "has_ggo": 1 << GGO in sets,
        "has_consolidation": 1 << CONSOLIDATION in sets,
        "hash": perceptual_hash(one.image),
    }
