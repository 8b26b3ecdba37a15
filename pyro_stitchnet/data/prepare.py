"""From folders of scans to a prepared dataset, over cores or machines; safe to stop and resume."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from dask.distributed import Client, LocalCluster, as_completed
from rich.console import Console
from rich.progress import track

from pyro_stitchnet.data.dataset import (
    FORMAT,
    MANIFEST,
    ROWS,
    SKIPPED,
    Dataset,
    finished_shards,
    write_shard,
)
from pyro_stitchnet.data.leakage import perceptual_hash
from pyro_stitchnet.data.preprocess import Preprocessing, Slice
from pyro_stitchnet.data.readers import PICTURES, read_mask, read_volume
from pyro_stitchnet.data.slices import ALL_LABELS
from pyro_stitchnet.data.sources import SOURCES, detect
from pyro_stitchnet.data.sources.base import Scan
from pyro_stitchnet.data.volume import Volume
from pyro_stitchnet.files import write_atomically
from pyro_stitchnet.labels import CONSOLIDATION, GGO, LABEL_RULES, LABELS

__all__ = ["Job", "find_jobs", "prepare", "prepare_scan"]

# Scans of a single picture that make up a shard together.
TOGETHER = 64

Meanings = Mapping[int, frozenset[int]]


@dataclass(frozen=True)
class Job:
    """A scan to prepare.

    Attributes:
        source: name of its source.
        scan: what the source says about it.
        meanings: mask value -> the labels it allows.
    """

    source: str
    scan: Scan
    meanings: Meanings


def find_jobs(folders: Sequence[str]) -> list[Job]:
    """The scans in folders, in an order that depends on nothing but their names.

    Args:
        folders: paths. ``PATH@NAME`` says how to read one: by a labelling rule, a key of
            :data:`~pyro_stitchnet.labels.LABEL_RULES`, or as a source, a key of
            :data:`~pyro_stitchnet.data.sources.SOURCES`, where its layout does not tell.

    Raises:
        FileNotFoundError: a folder, or a file that its index names, is missing.
        ValueError: a folder has an unknown layout or no scan, or two scans have one name.
    """
    jobs: list[Job] = []
    for text in folders:
        folder, how = _parse(text)
        source = SOURCES[how] if how in SOURCES else detect(folder)
        rule = LABEL_RULES.get(how)
        found = [
            Job(source.name, scan, rule or scan.meanings or source.meanings)
            for scan in source.find(folder)
        ]
        if not found:
            raise ValueError(f"{folder}: holds no scan in the layout of {source.name!r}")
        jobs += sorted(found, key=lambda job: job.scan.name)
    seen: dict[str, Scan] = {}
    for job in jobs:
        twin = seen.setdefault(job.scan.name, job.scan)
        if twin is not job.scan:
            raise ValueError(
                f"{_file(job.scan)}: its scan has the same name {job.scan.name!r} as "
                f"{_file(twin)}; rename one of them"
            )
    return jobs


def prepare(
    folders: Sequence[str],
    out: Path,
    *,
    preprocessing: Preprocessing,
    workers: int = 1,
    scheduler: str | None = None,
    skip_bad: bool = False,
    progress: bool = True,
) -> Dataset:
    """Read, preprocess and store scans.

    Killed or interrupted, the same call goes on where it stopped. The files are the same, byte
    for byte, whatever the number of workers.

    Args:
        folders: as for :func:`find_jobs`.
        out: the dataset's folder.
        preprocessing: the steps.
        workers: processes on this machine; 1 works in this process.
        scheduler: address of a dask scheduler whose workers do the work instead, on machines that
            see the same files.
        skip_bad: leave out scans that cannot be used, and list them in ``skipped.csv``.
        progress: show a progress bar.

    Raises:
        FileExistsError: ``out`` holds a finished dataset.
        FileNotFoundError: a folder or file is missing.
        ValueError: a scan cannot be used (without ``skip_bad``), or ``out`` holds the start of
            another dataset.
        OSError: ``out`` cannot be written.
    """
    if (out / "dataset.json").exists():
        raise FileExistsError(f"{out}: holds a dataset already; choose another --out")
    out = out.absolute()  # workers on other machines may start elsewhere
    jobs = find_jobs(folders)
    units = _units(jobs)
    about = {
        "format": FORMAT,
        "package": version("pyro-stitchnet"),
        "preprocessing": json.loads(json.dumps(asdict(preprocessing))),
        "sources": {
            name: {
                key: getattr(SOURCES[name], key)
                for key in ("title", "licence", "citation", "homepage", "caution")
            }
            for name in sorted({job.source for job in jobs})
        },
    }
    _keep_plan(out, {**about, "scans": _digest(jobs)})
    done = finished_shards(out)
    waiting = [shard for shard in range(len(units)) if shard not in done]
    work = [Unit(out, shard, units[shard], preprocessing, skip_bad) for shard in waiting]
    for _ in track(
        _work(work, workers, scheduler),
        "preparing",
        total=len(units),
        completed=len(done),
        console=Console(stderr=True),
        disable=not progress,
    ):
        pass
    return _finish(out, about)


def prepare_scan(job: Job, preprocessing: Preprocessing) -> tuple[Volume, list[Slice]]:
    """Read and preprocess one scan.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is unreadable, its mask does not fit, or no slice has enough lung.
    """
    scan = job.scan
    volume = read_volume(scan.image)
    slices = list(preprocessing(volume, _label_sets(job, volume), stacked=scan.stacked))
    if not slices:
        raise ValueError(
            f"{_file(scan)}: no slice has a lung field; is it a chest CT? If it is cropped to the "
            "lungs already, prepare it with --lungs none"
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
        rows, skipped = [], []
        for job in self.jobs:
            try:
                volume, slices = prepare_scan(job, self.preprocessing)
            except (ValueError, OSError) as error:
                if not self.skip_bad:
                    raise
                skipped.append({"scan": job.scan.name, "reason": str(error)})
                continue
            for picture in slices:
                row = _row(job, volume, picture)
                rows.append({**row, "shard": self.shard, "row": len(pictures)})
                pictures.append(picture)
        size = self.preprocessing.size
        stack = np.empty((len(pictures), 2, size, size), np.uint8)
        for i, picture in enumerate(pictures):
            stack[i] = np.round(picture.image * 255), picture.label_sets
        write_shard(
            self.out,
            self.shard,
            stack,
            pd.DataFrame(rows, columns=list(MANIFEST)),
            pd.DataFrame(skipped, columns=["scan", "reason"]),
        )


def _parse(text: str) -> tuple[Path, str]:
    """``PATH`` or ``PATH@NAME``."""
    path, _, how = text.rpartition("@")
    if how not in (*SOURCES, *LABEL_RULES):
        path, how = text, ""
    if not Path(path).is_dir():
        known = ", ".join((*LABEL_RULES, *SOURCES))
        if Path(path).exists():
            raise ValueError(f"{path}: is no folder; give the folder that it lies in")
        raise FileNotFoundError(f"{path}: no such folder (after an @ may come one of {known})")
    return Path(path).resolve(), how  # absolute, as `out` is


def _file(scan: Scan) -> Path:
    """A path to name in a message."""
    return scan.image if isinstance(scan.image, Path) else scan.image[0]


def _units(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs shard by shard: one each, but up to :data:`TOGETHER` of a single picture."""
    units: list[list[Job]] = []
    room = 0
    for job in jobs:
        single = _file(job.scan).suffix.lower() in PICTURES and (
            isinstance(job.scan.image, Path) or len(job.scan.image) == 1
        )
        if not single or not room:
            units.append([])
            room = TOGETHER
        units[-1].append(job)
        room = room - 1 if single else 0
    return units


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


def _row(job: Job, volume: Volume, picture: Slice) -> dict[str, object]:
    """A slice's row of the manifest, but for where it is stored."""
    scan, grid = job.scan, picture.grid
    single = len(volume.axial()) == 1
    sets = np.unique(picture.label_sets).tolist()
    names = ["+".join(str(k) for k in range(len(LABELS)) if bits >> k & 1) for bits in sets]
    between, row, column = volume.axial_spacing()
    return {
        "slice": scan.name if single else f"{scan.name}/{picture.index:04d}",
        "patient": scan.patient,
        "study": scan.study or volume.study,
        "scan": scan.name,
        "index": picture.index,
        "source": job.source,
        "file": str(_file(scan)),
        "hounsfield": volume.hounsfield,
        "slice_mm": between,
        "row_mm": row,
        "column_mm": column,
        **asdict(grid),
        "lung": float(picture.lung.mean()),
        "label_sets": " ".join(sorted(names)),
        "labelled": sets != [ALL_LABELS],
        "complete": all(bits.bit_count() == 1 for bits in sets),
        "has_ggo": 1 << GGO in sets,
        "has_consolidation": 1 << CONSOLIDATION in sets,
        "hash": perceptual_hash(picture.image),
    }


def _digest(jobs: Sequence[Job]) -> str:
    """Tells one list of scans from another."""
    said = repr([(job.source, job.scan, sorted(job.meanings.items())) for job in jobs])
    return f"{len(jobs)}, sha256 {hashlib.sha256(said.encode()).hexdigest()}"


def _keep_plan(out: Path, plan: Mapping[str, object]) -> None:
    """Write what is about to be prepared; refuse to go on with something else."""
    path = out / "plan.json"
    text = json.dumps(plan, indent=2) + "\n"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differ = [key for key, value in json.loads(text).items() if before.get(key) != value]
        if differ:
            raise ValueError(
                f"{out}: holds the start of a dataset whose {', '.join(differ)} differ; give what "
                "it was started with, or choose another --out"
            )
    (out / "shards").mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


def _work(units: Sequence[Unit], workers: int, scheduler: str | None) -> Iterator[None]:
    """Do units of work, in any order; yields as each is done."""
    if workers == 1 and scheduler is None:
        for unit in units:
            unit()
            yield
        return
    with ExitStack() as stack:
        # dask gives the work of a worker that died to another one.
        cluster = scheduler or stack.enter_context(
            LocalCluster(
                n_workers=min(workers, max(len(units), 1)),
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=":0",  # any free port: several may run side by side
                silence_logs=logging.ERROR,
            )
        )
        client = stack.enter_context(Client(cluster))
        for _ in as_completed(client.map(Unit.__call__, units, pure=False), with_results=True):
            yield


def _finish(out: Path, about: Mapping[str, object]) -> Dataset:
    """Put the shards' tables together; ``dataset.json`` comes last."""
    skipped = finished_shards(out, SKIPPED)
    write_atomically(out / SKIPPED, pd.concat(skipped.values()).to_csv(index=False))
    manifest = pd.concat(finished_shards(out).values(), ignore_index=True)
    if manifest.empty:
        raise ValueError(f"{out}: no slice is left, see {out / SKIPPED}")
    for left in [*(out / "shards").glob(".*.tmp"), *out.glob(".*.tmp")]:  # by workers killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_atomically(out / ROWS, manifest.to_csv(index=False))
    write_atomically(out / "dataset.json", json.dumps(about, indent=2) + "\n")
    (out / "plan.json").unlink()
    return Dataset(out)
