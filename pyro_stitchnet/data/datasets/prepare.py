"""From folders of scans to a prepared dataset, on many cores or machines; resumes when stopped."""

import hashlib
import json
import math
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from pyro_stitchnet.data.datasets.dataset import FORMAT, Dataset
from pyro_stitchnet.data.datasets.prepare_scan import Job, Trial, Unit
from pyro_stitchnet.data.datasets.shards import (
    ROWS,
    SKIPPED,
    checksums,
    finished_shards,
    remove_outdated,
    write_table,
)
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS
from pyro_stitchnet.data.scans.readers import files_of
from pyro_stitchnet.data.sources import SOURCES, detect
from pyro_stitchnet.data.sources.folder import FOLDER
from pyro_stitchnet.labels import LABEL_RULES
from pyro_stitchnet.runtime.checksums import read_json, write_json
from pyro_stitchnet.runtime.files import naming, refuse_others, remove_unfinished
from pyro_stitchnet.runtime.limits import PREPARE_SECONDS
from pyro_stitchnet.runtime.locks import only_run
from pyro_stitchnet.runtime.settings import differences
from pyro_stitchnet.runtime.threads import usable_cores
from pyro_stitchnet.runtime.workers import UnitLost, work

__all__ = ["find_jobs", "prepare"]

IMAGES_PER_SHARD = 64
"""How many scans of a single image share a shard."""

FEW_IMAGES = 256
"""Up to this number, images take no longer than processes take to start."""

MOST_WORKERS = 128
"""The most processes that start by default."""

TAKEN = (
    "{}: holds a dataset already; choose another --out. If it is damaged, remove its dataset.json, "
    "and this command repairs it"
)


def find_jobs(folders: Sequence[str]) -> list[Job]:
    """Find the scans in folders, in an order that depends on their names only.

    Args:
        folders: paths. ``PATH@NAME`` names a labelling rule for the masks, a key of
            :data:`~pyro_stitchnet.labels.LABEL_RULES`, or the layout of the folder, a key of
            :data:`~pyro_stitchnet.data.sources.SOURCES`, where it cannot be detected.

    Raises:
        FileNotFoundError: a folder, or a file that its index names, is missing.
        ValueError: there is no folder, one has an unknown layout or no scan, or scans of different
            folders have the same name.
    """
    if not folders:
        raise ValueError("no folder to prepare; name at least one: `stitchnet prepare FOLDER ...`")
    jobs: list[Job] = []
    for text in folders:
        folder, name = _parse(text)
        source = SOURCES[name] if name in SOURCES else detect(folder)
        given = LABEL_RULES.get(name)
        here = [
            Job(source.name, scan, given or scan.rule or source.rule, rule_given=bool(given))
            for scan in source.find(folder)
        ]
        if not here:
            raise ValueError(
                f"{folder}: holds no scan in the layout {source.name!r}, which is {source.layout}"
            )
        jobs += sorted(here, key=lambda job: job.scan.name)
    by_name: dict[str, Job] = {}
    for place, job in enumerate(jobs):
        twin = by_name.setdefault(job.scan.name, job)
        if twin is not job and _same_but_form(job.file, twin.file):
            # One name in two forms of Unicode, beside each other: both files are read.
            job = replace(job, scan=replace(job.scan, name=f"{job.scan.name}~2"))
            jobs[place], twin = job, by_name.setdefault(job.scan.name, job)
        if twin is not job:
            if twin.file == job.file:
                raise ValueError(f"{twin.file}: is given twice; name its folder once")
            fault = (
                f"{job.file}: its scan has the same name {job.scan.name!r} as "
                f"{twin.file}; rename one of them"
            )
            if job.file.parent != twin.file.parent:
                raise ValueError(fault)
            # Their names differ only in their endings.
            jobs[place] = replace(job, scan=replace(job.scan, fault=job.scan.fault or fault))
    return _without_halves(jobs)


def _without_halves(jobs: Sequence[Job]) -> list[Job]:
    """Mark scans of one DICOM series that is spread over several given folders: none is whole."""
    from pyro_stitchnet.data.scans.dicom import are_parts  # pydicom is slow to import

    sharing: dict[str, list[Job]] = {}
    for job in jobs:
        sharing.setdefault(job.scan.series or "", []).append(job)
    checked = []
    for job in jobs:
        series = job.scan.series or ""
        for other in sharing[series] if series and not job.scan.fault else ():
            if other is not job and are_parts(job.scan.image, other.scan.image, series):
                where = f"its series is also in {other.file}"
                fault = f"{job.file}: {where}; give one folder that holds both"
                job = replace(job, scan=replace(job.scan, fault=fault))
                break
        checked.append(job)
    return checked


def prepare(
    folders: Sequence[str],
    out: Path,
    *,
    preprocessing: Preprocessing,
    workers: int | None = 0,
    scheduler: str | None = None,
    skip_bad: bool = False,
    time_limit: float = PREPARE_SECONDS,
    progress: bool = True,
) -> Dataset:
    """Read, preprocess and store scans.

    After an interruption the same call resumes; it prepares scans again whose files have changed
    since. The dataset does not depend on the number of workers.

    Args:
        folders: as for :func:`find_jobs`.
        out: the dataset's folder.
        preprocessing: the steps.
        workers: processes on this machine. If one crashes or hangs, only the scan that it was
            reading fails. 0 works in this process. None starts one per core, or none for up to
            :data:`FEW_IMAGES` scans of a single image without a shorter time limit.
        scheduler: address of a dask scheduler whose workers do the work instead, on machines with
            the same files.
        skip_bad: whether to leave out scans that cannot be used, and list them in ``skipped.csv``.
        time_limit: seconds that a scan may take in a process on this machine.
        progress: whether to show a progress bar.

    Returns:
        The dataset.

    Raises:
        FileExistsError: ``out`` holds a finished dataset, or other files.
        FileNotFoundError: a folder or file is missing, or ``out`` was removed during the run.
        ValueError: a scan cannot be used (without ``skip_bad``), two slices have the same name,
            ``out`` holds the start of another dataset or lost files during the run, or ``workers``
            or ``time_limit`` is out of range.
        OSError: ``out`` cannot be written, or another run writes there; the next call resumes.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers}")
    if not 0 < time_limit < math.inf:
        raise ValueError(f"time_limit must be a positive number of seconds, got {time_limit}")
    if (out / "dataset.json").exists():
        raise FileExistsError(TAKEN.format(out))
    out = out.absolute()  # other workers may have another working directory
    jobs = find_jobs(folders)
    if workers is None:
        few = len(jobs) <= FEW_IMAGES and all(map(_is_image, jobs))
        # A shorter time limit needs processes, which can be ended.
        workers = 0 if few and time_limit >= PREPARE_SECONDS else min(usable_cores(), MOST_WORKERS)
    if not skip_bad and (faults := [job.scan.fault for job in jobs if job.scan.fault]):
        raise ValueError(faults[0])
    about = {
        "format": FORMAT,
        "package": version("pyro-stitchnet"),
        "preprocessing": json.loads(json.dumps(asdict(preprocessing))),
        "sources": {
            name: {
                **{
                    key: getattr(SOURCES[name], key)
                    for key in ("title", "licence", "citation", "homepage")
                },
                "caution": _caution(name, jobs),
            }
            for name in sorted({job.source for job in jobs})
        },
    }
    plan = {**about, "scans": _digest(jobs)}
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    shards = _shards(jobs)
    with naming(out), only_run(out):
        if (out / "dataset.json").exists():  # another run wrote it meanwhile
            raise FileExistsError(TAKEN.format(out))
        _write_plan(out, plan)
        units = [
            Unit(out, shard, scans, preprocessing, skip_bad, digest, _state(scans))
            for shard, scans in enumerate(shards)
        ]
        done = {
            shard
            for shard in finished_shards(out, digest)
            if not remove_outdated(out, shard, units[shard].files)
        }
        todo = [unit for unit in units if unit.shard not in done]
        for _ in track(
            _run(todo, workers, scheduler, time_limit),
            "preparing",
            total=len(shards),
            completed=len(done),
            console=Console(stderr=True),
            disable=not progress,
        ):
            pass
        return _finish(out, about, digest, len(shards))


def _run(
    units: Sequence[Unit], workers: int, scheduler: str | None, limit: float
) -> Iterator[bool]:
    """Run units; a lost unit runs again, without the scans that crash or hang their process."""
    lost: list[tuple[Unit, str]] = []

    def note(unit: object, reason: str) -> bool:
        assert isinstance(unit, Unit)
        lost.append((unit, reason))
        if not unit.skip_bad:
            raise UnitLost(reason)  # ends the others; below, the scan at fault is found
        return False

    with suppress(UnitLost):
        yield from filter(None, work(units, workers, scheduler, limit=limit, lost=note))
    for unit, reason in lost:
        faults = _culprits(unit, workers, scheduler, limit) if len(unit.jobs) > 1 else {0: reason}
        jobs = [
            replace(job, scan=replace(job.scan, fault=f"{job.file}: {faults[place]}"))
            if place in faults
            else job
            for place, job in enumerate(unit.jobs)
        ]
        if faults and not unit.skip_bad:
            raise ValueError(next(job.scan.fault for job in jobs if job.scan.fault))
        again = [replace(unit, jobs=jobs)]
        yield from work(again, min(workers, 1), scheduler, limit=limit * len(jobs), lost=_give_up)
        if not unit.skip_bad:  # no scan is at fault: run the units that were ended with this one
            done = finished_shards(unit.out, unit.plan)
            rest = [one for one in units if one.shard not in done]
            yield from _run(rest, workers, scheduler, limit)


def _give_up(unit: object, reason: str) -> bool:
    assert isinstance(unit, Unit)
    raise UnitLost(f"{unit.jobs[0].file} or another scan of shard {unit.shard}: {reason}")


def _culprits(unit: Unit, workers: int, scheduler: str | None, limit: float) -> dict[int, str]:
    """Return place -> reason for the scans of a unit that crash or hang their process."""
    faults: dict[int, str] = {}
    trials = [Trial(unit.out, job, unit.preprocessing) for job in unit.jobs]

    def note(trial: object, reason: str) -> None:
        faults[next(place for place, one in enumerate(trials) if one is trial)] = reason

    for _ in work(trials, workers, scheduler, limit=limit, lost=note):
        pass
    return faults


def _parse(text: str) -> tuple[Path, str]:
    """Split ``PATH@NAME`` into path and name; the name is "" in ``PATH``."""
    path, at, name = text.rpartition("@")
    if not at or name not in (*SOURCES, *LABEL_RULES):
        path, name = text, ""
    if not Path(path).is_dir():
        known = ", ".join((*LABEL_RULES, *SOURCES))
        if Path(path).exists():
            raise ValueError(f"{path}: is not a folder; give the folder that contains it")
        raise FileNotFoundError(f"{path}: no such folder (an @ may be followed by one of {known})")
    return Path(path).resolve(), name  # absolute like `out`


def _caution(name: str, jobs: Iterable[Job]) -> str:
    """Return the caution of a source; of ``folder``, only where the masks' rule was assumed."""
    assumed = any(job.scan.mask and not job.rule_given for job in jobs if job.source == name)
    return SOURCES[name].caution if assumed or name != FOLDER.name else ""


def _shards(jobs: Iterable[Job]) -> list[list[Job]]:
    """Group jobs by shard: one job each, or up to :data:`IMAGES_PER_SHARD` of a single image."""
    shards: list[list[Job]] = []
    room = 0
    for job in jobs:
        single = _is_image(job)
        if not single or not room:
            shards.append([])
            room = IMAGES_PER_SHARD
        shards[-1].append(job)
        room = room - 1 if single else 0
    return shards


def _is_image(job: Job) -> bool:
    """Whether a scan is a single image."""
    image = job.scan.image
    return job.file.suffix.lower() in IMAGE_ENDINGS and (isinstance(image, Path) or len(image) == 1)


def _same_but_form(path: Path, other: Path) -> bool:
    """Whether two different paths are spelt with the same letters, in two forms of Unicode."""
    one, two = (unicodedata.normalize("NFC", os.fspath(each)) for each in (path, other))
    return path != other and one == two


def _digest(jobs: Sequence[Job]) -> str:
    """Return the number and a digest of the scans."""
    text = repr([(job.source, job.scan, sorted(job.rule.items())) for job in jobs])
    return f"{len(jobs)}, sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def _state(jobs: Sequence[Job]) -> str:
    """Return a digest of the names, sizes and times of the files of scans without a fault."""
    usable = (job for job in jobs if not job.scan.fault)
    found = [(str(file), file.stat()) for job in usable for file in _files(job)]
    text = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in found])
    return hashlib.sha256(text.encode()).hexdigest()


def _files(job: Job) -> Iterator[Path]:
    """Yield the files of a scan and its masks: all in a DICOM folder, detached voxels too."""
    for paths in (job.scan.image, job.scan.mask):
        for path in paths if isinstance(paths, tuple) else (paths,):
            if path is not None and path.is_dir():
                yield from sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".")
            elif path is not None and path.is_file():
                yield from files_of(path)


def _write_plan(out: Path, plan: Mapping[str, object]) -> None:
    """Write the plan of a preparation; refuse a folder that was started with another plan."""
    path = out / "plan.json"
    if path.exists():
        if differ := differences(read_json(path), plan):
            raise ValueError(
                f"{out}: holds the start of another dataset ({'; '.join(differ)}); repeat the "
                "command that started it, or choose another --out"
            )
    else:
        refuse_others(out, own={"shards", ROWS, SKIPPED})
    (out / "shards").mkdir(exist_ok=True)
    write_json(path, plan)


def _finish(out: Path, about: Mapping[str, object], plan: str, shards: int) -> Dataset:
    """Join the shards' tables, and write ``dataset.json`` last."""
    tables = finished_shards(out, plan)
    if lost := sorted(set(range(shards)) - set(tables)):
        raise ValueError(
            f"{out}: {len(lost)} of {shards} shards were removed while this ran; run the same "
            "command again"
        )
    manifest, skipped = (
        pd.concat(part, ignore_index=True) for part in zip(*tables.values(), strict=True)
    )
    write_table(skipped, out / SKIPPED)
    if manifest.empty:
        raise ValueError(f"{out}: no slice is left, see {out / SKIPPED}")
    repeated = manifest["slice"][manifest["slice"].duplicated()]
    if len(repeated):  # scan "a" has a slice "a/0001"; a scan of one slice may have that name too
        raise ValueError(
            f"{out}: two slices are called {repeated.iloc[0]}; rename the file or folder of one, "
            "and choose another --out"
        )
    for folder in (out / "shards", out):
        remove_unfinished(folder)
    write_table(manifest, out / ROWS)
    write_json(out / "dataset.json", {**about, "checksums": checksums(out)})
    (out / "plan.json").unlink(missing_ok=True)
    return Dataset(out)
