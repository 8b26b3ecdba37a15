"""From folders of scans to a prepared dataset, on many cores or machines; resumes when stopped."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from pyro_stitchnet.data.datasets.dataset import FORMAT, Dataset
from pyro_stitchnet.data.datasets.prepare_scan import Job, Unit
from pyro_stitchnet.data.datasets.shards import ROWS, SKIPPED, finished_shards
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS
from pyro_stitchnet.data.sources import SOURCES, detect
from pyro_stitchnet.data.sources.folder import FOLDER
from pyro_stitchnet.labels import LABEL_RULES
from pyro_stitchnet.runtime.files import naming, write_atomically
from pyro_stitchnet.runtime.workers import work

__all__ = ["find_jobs", "prepare"]

IMAGES_PER_SHARD = 64
"""How many scans of a single image share a shard."""


def find_jobs(folders: Sequence[str]) -> list[Job]:
    """Find the scans in folders, in an order that depends on their names only.

    Args:
        folders: paths. ``PATH@NAME`` names a labelling rule for the masks, a key of
            :data:`~pyro_stitchnet.labels.LABEL_RULES`, or the layout of the folder, a key of
            :data:`~pyro_stitchnet.data.sources.SOURCES`, where it cannot be detected.

    Raises:
        FileNotFoundError: a folder, or a file that its index names, is missing.
        ValueError: there is no folder, one has an unknown layout or no scan, or two scans have the
            same name.
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
    for job in jobs:
        twin = by_name.setdefault(job.scan.name, job)
        if twin is not job:
            if twin.file == job.file:
                raise ValueError(f"{twin.file}: is given twice; name its folder once")
            raise ValueError(
                f"{job.file}: its scan has the same name {job.scan.name!r} as "
                f"{twin.file}; rename one of them"
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

    After an interruption the same call resumes. The files do not depend on the number of workers.

    Args:
        folders: as for :func:`find_jobs`.
        out: the dataset's folder.
        preprocessing: the steps.
        workers: processes on this machine; 1 works in this process.
        scheduler: address of a dask scheduler whose workers do the work instead, on machines with
            the same files.
        skip_bad: whether to leave out scans that cannot be used, and list them in ``skipped.csv``.
        progress: whether to show a progress bar.

    Returns:
        The dataset.

    Raises:
        FileExistsError: ``out`` holds a finished dataset.
        FileNotFoundError: a folder or file is missing.
        ValueError: a scan cannot be used (without ``skip_bad``), two slices have the same name,
            ``out`` holds the start of another dataset, or ``workers`` is below 1.
        OSError: ``out`` cannot be written; the next call resumes.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if (out / "dataset.json").exists():
        raise FileExistsError(f"{out}: holds a dataset already; choose another --out")
    out = out.absolute()  # other workers may have another working directory
    jobs = find_jobs(folders)
    units = _units(jobs)
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
    _write_plan(out, {**about, "scans": _digest(jobs)})
    done = finished_shards(out)
    missing = [shard for shard in range(len(units)) if shard not in done]
    units_left = [Unit(out, shard, units[shard], preprocessing, skip_bad) for shard in missing]
    with naming(out):
        for _ in track(
            work(units_left, workers, scheduler),
            "preparing",
            total=len(units),
            completed=len(done),
            console=Console(stderr=True),
            disable=not progress,
        ):
            pass
    return _finish(out, about)


def _parse(text: str) -> tuple[Path, str]:
    """Split ``PATH@NAME`` into path and name; the name is "" in ``PATH``."""
    path, at, name = text.rpartition("@")
    if not at or name not in (*SOURCES, *LABEL_RULES):
        path, name = text, ""
    if not Path(path).is_dir():
        known = ", ".join((*LABEL_RULES, *SOURCES))
        if Path(path).exists():
            raise ValueError(f"{path}: is no folder; give the folder that it lies in")
        raise FileNotFoundError(f"{path}: no such folder (an @ may be followed by one of {known})")
    return Path(path).resolve(), name  # absolute like `out`


def _caution(name: str, jobs: Iterable[Job]) -> str:
    """Return the caution of a source; of ``folder``, only where the masks' rule was assumed."""
    assumed = any(job.scan.mask and not job.rule_given for job in jobs if job.source == name)
    return SOURCES[name].caution if assumed or name != FOLDER.name else ""


def _units(jobs: Iterable[Job]) -> list[list[Job]]:
    """Group jobs by shard: one job each, or up to :data:`IMAGES_PER_SHARD` of a single image."""
    units: list[list[Job]] = []
    room = 0
    for job in jobs:
        single = job.file.suffix.lower() in IMAGE_ENDINGS and (
            isinstance(job.scan.image, Path) or len(job.scan.image) == 1
        )
        if not single or not room:
            units.append([])
            room = IMAGES_PER_SHARD
        units[-1].append(job)
        room = room - 1 if single else 0
    return units


def _digest(jobs: Sequence[Job]) -> str:
    """Return the number and a digest of the scans."""
    text = repr([(job.source, job.scan, sorted(job.rule.items())) for job in jobs])
    return f"{len(jobs)}, sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def _write_plan(out: Path, plan: Mapping[str, object]) -> None:
    """Write the plan of a preparation; refuse a folder that was started with another plan."""
    path = out / "plan.json"
    text = json.dumps(plan, indent=2) + "\n"
    if path.exists():
        started = json.loads(path.read_text(encoding="utf-8"))
        differ = [key for key, value in json.loads(text).items() if started.get(key) != value]
        if differ:
            raise ValueError(
                f"{out}: holds the start of a dataset whose {', '.join(differ)} differ; repeat the "
                "command that started it, or choose another --out"
            )
    (out / "shards").mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)


def _finish(out: Path, about: Mapping[str, object]) -> Dataset:
    """Join the shards' tables, and write ``dataset.json`` last."""
    skipped = finished_shards(out, SKIPPED)
    write_atomically(out / SKIPPED, pd.concat(skipped.values()).to_csv(index=False))
    manifest = pd.concat(finished_shards(out).values(), ignore_index=True)
    if manifest.empty:
        raise ValueError(f"{out}: no slice is left, see {out / SKIPPED}")
    repeated = manifest["slice"][manifest["slice"].duplicated()]
    if len(repeated):  # scan "a" has a slice "a/0001"; a scan of one slice may have that name too
        raise ValueError(
            f"{out}: two slices are called {repeated.iloc[0]}; rename the file or folder of one, "
            "and choose another --out"
        )
    for left in [*(out / "shards").glob(".*.tmp"), *out.glob(".*.tmp")]:  # of killed workers
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_atomically(out / ROWS, manifest.to_csv(index=False))
    write_atomically(out / "dataset.json", json.dumps(about, indent=2) + "\n")
    (out / "plan.json").unlink()
    return Dataset(out)
