"""Segment many scans with several processes or machines; an interrupted run can be resumed."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import track

from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.prediction.inputs import ScanInput, find_inputs
from pyro_stitchnet.prediction.one_scan import (
    ModelSource,
    Outcome,
    ScanUnit,
    cache_model,
    check_still_there,
)
from pyro_stitchnet.prediction.output_files import FAILED, PLAN, REPORT, read_report, verify_result
from pyro_stitchnet.prediction.scan_report import write_scans_table
from pyro_stitchnet.prediction.sources import Sources
from pyro_stitchnet.runtime.checksums import read_json, write_json
from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.runtime.files import (
    naming,
    refuse_others,
    remove_unfinished,
    write_atomically,
)
from pyro_stitchnet.runtime.limits import PREDICT_SECONDS
from pyro_stitchnet.runtime.locks import only_run
from pyro_stitchnet.runtime.precision import resolved
from pyro_stitchnet.runtime.ranges import Positive, Workers, checked
from pyro_stitchnet.runtime.settings import differences
from pyro_stitchnet.runtime.text import csv_text, escaped
from pyro_stitchnet.runtime.threads import usable_cores
from pyro_stitchnet.runtime.workers import work

__all__ = ["Summary", "predict_scans"]

WORKERS_PER_GPU = 4


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        segmented: number of scans that this run segmented.
        finished_before: number of scans that an earlier run segmented.
        failed: scans that failed, with columns ``scan`` (its name in the results), ``source`` (its
            path) and ``reason``.
        sources: the path of every scan of this run, by its name in the results.
    """

    segmented: int
    finished_before: int
    failed: pd.DataFrame
    sources: dict[str, str]


@checked
def predict_scans(
    inputs: Sequence[Path],
    model: ModelSource,
    out: Path,
    *,
    extras: tuple[str, ...] = (),
    seg: bool = True,
    keep_identifiers: bool = False,
    workers: Workers | None = None,
    scheduler: str | None = None,
    time_limit: Positive = PREDICT_SECONDS,
    progress: bool = True,
) -> Summary:
    """Segment scans and write a folder of results for each.

    After an interruption the same call resumes the work: a scan is finished if its folder exists
    and is as it was written, and its files have not changed since. A scan that cannot be segmented
    is listed in ``failed.csv``, and the others continue. A file next to the results lists the path
    of each scan, see :func:`~pyro_stitchnet.prediction.output_files.sources_file`.

    Args:
        inputs: as for :func:`~pyro_stitchnet.prediction.inputs.find_inputs`.
        model: the model.
        out: the results folder.
        extras: optional maps to write: "scan", "healthy".
        seg: whether to write a DICOM SEG for DICOM input.
        keep_identifiers: whether results may contain names of files and identifiers of DICOM
            headers.
        workers: processes on this machine; 0 works in this process, which a bad scan may then
            crash. By default one per core, or four that share a GPU, but at most one per scan.
        scheduler: address of a dask scheduler whose workers do the work instead, on machines that
            share the file system.
        time_limit: seconds that one scan may take in a process on this machine.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: the model does not exist, or ``out`` was removed during the run.
        FileExistsError: ``out`` has other files, and no results.
        BlockingIOError: another run writes to ``out``.
        ValueError: the model does not record its preprocessing, ``out`` has results of another
            model or other options, or an option is invalid.
        OSError: ``out`` cannot be written.
        KeyboardInterrupt: the run was stopped; the same call resumes it.
    """
    model, device, plan = _checked(model, alone=workers == 0 and scheduler is None)
    plan |= {"extras": sorted(extras), "seg": seg, "keep_identifiers": keep_identifiers}
    out = out.resolve()
    scans = find_inputs(inputs)
    with only_run(out), naming(out):
        _write_plan(out, plan)
        sources = Sources(out)
        names = sources.add(scans, keep_identifiers=keep_identifiers)
        units = {
            name: ScanUnit(one, name, out, model, extras, seg, keep_identifiers)
            for name, one in names.items()
        }
        failed = [units[name].failed(one.fault) for name, one in names.items() if one.fault]
        before = [name for name, one in names.items() if not one.fault and (out / name).exists()]
        bad = [units[name].failed(_changed(names[name], out / name)) for name in sources.changed]
        same = [name for name in before if name not in sources.changed]
        bad += _damaged(out, same, progress=progress)
        failed += bad
        finished = {*before} - {one.scan for one in bad}
        waiting = [name for name, one in names.items() if not one.fault and name not in before]
        if workers is None:
            most = WORKERS_PER_GPU if device == "cuda" else usable_cores()
            # By all scans: results depend in their last bit on the number of threads, and those of
            # a resumed run must not differ.
            workers = max(1, min(most, len(before) + len(waiting)))
        threads = max(1, usable_cores() // workers) if workers > 1 else None
        segmented: set[str] = set()
        try:
            outcomes = work(
                [replace(units[name], threads=threads) for name in waiting],
                workers, scheduler, limit=time_limit, lost=_lost,
            )  # fmt: skip
            done = len(names) - len(waiting)
            for outcome in _shown(outcomes, "segmenting", len(names), done, progress=progress):
                if outcome.reason:
                    failed.append(outcome)
                else:
                    segmented.add(outcome.scan)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; run the same command again to resume") from None
        finally:
            check_still_there(out)
            table = _write_failed(out, failed, names, keep_identifiers=keep_identifiers)
            sources.write(dict(zip(table["scan"], table["reason"], strict=True)))
            write_scans_table(out)
        remove_unfinished(out)
        good = segmented | finished
        if gone := sorted(name for name in good if not (out / name / REPORT).is_file()):
            raise FileNotFoundError(
                f"{out}: {len(gone)} of {len(good)} results were removed during the run, such as "
                f"{gone[0]}; run the same command again"
            )
    paths = {name: str(one.path) for name, one in names.items()}
    return Summary(len(segmented), len(finished), table, paths)


def _checked(model: ModelSource, *, alone: bool) -> tuple[ModelSource, str, dict[str, Any]]:
    """The model with its digest, the type of its device, and its part of the plan.

    It is loaded here, so that its errors are raised before any work. Workers load it themselves,
    all with the precision that is chosen here.
    """
    device = choose_device(model.device)
    options = model.options or ReadOutOptions()
    options = replace(options, precision=resolved(options.precision, device))
    model = replace(model, options=options)
    on_cpu = replace(model, device="cpu", options=replace(options, precision="32"))
    segmenter = (model if alone else on_cpu).load()
    model = replace(model, digest=segmenter.digest)
    if alone:
        cache_model(model, segmenter)
    plan = {
        "model": segmenter.digest,
        "preprocessing": asdict(segmenter.preprocessing),
        "options": asdict(options),
    }
    return model, device.type, plan


def _shown(
    outcomes: Iterable[Outcome], title: str, total: int, done: int = 0, *, progress: bool
) -> Iterable[Outcome]:
    """The outcomes, with a progress bar."""
    return track(
        outcomes,
        title,
        total,
        done,
        console=Console(stderr=True),
        disable=not progress or not total,
    )


def _changed(scan: ScanInput, result: Path) -> str:
    return (
        f"{scan.path}: changed after it was segmented (size or time of a file); to segment it "
        f"again, remove {result}"
    )


def _damaged(out: Path, names: Sequence[str], *, progress: bool) -> list[Outcome]:
    """The scans of earlier runs whose results are not as they were written."""

    def check(name: str) -> Outcome:
        try:
            verify_result(out / name, read_report(out / name))
        except (OSError, ValueError) as error:
            return Outcome(name, str(error), str(error).replace(f"{out}{os.sep}", ""))
        return Outcome(name)

    with ThreadPoolExecutor() as pool:
        checked = _shown(pool.map(check, names), "checking", len(names), progress=progress)
        return [outcome for outcome in checked if outcome.reason]


def _lost(unit: object, reason: str) -> Outcome:
    assert isinstance(unit, ScanUnit)
    # Its files, which may have ended the worker, are not opened again to find identifiers.
    return Outcome(unit.scan, reason, reason)


def _write_failed(
    out: Path, failed: Iterable[Outcome], names: Mapping[str, ScanInput], *, keep_identifiers: bool
) -> pd.DataFrame:
    """Write ``failed.csv``; return the table with all paths."""
    failed = sorted(failed, key=lambda one: one.scan)
    columns = {
        "scan": [one.scan for one in failed],
        "source": [escaped(str(names[one.scan].path)) for one in failed],
        "reason": [escaped(one.reason) for one in failed],
    }
    table = pd.DataFrame(columns, dtype=str)
    written = table.assign(reason=[one.written for one in failed])
    if not keep_identifiers:
        written = written.drop(columns="source")
    write_atomically(out / FAILED, csv_text(written))
    return table


def _write_plan(out: Path, plan: dict[str, object]) -> None:
    """Record model and options in the results folder; refuse a folder with a different record."""
    path = out / PLAN
    if not path.exists():
        refuse_others(out, own=())
        write_json(path, plan)
        return
    try:
        before = read_json(path)
    except ValueError as error:
        raise ValueError(f"{str(error).partition(';')[0]}; choose another --out") from error
    plan = json.loads(json.dumps(plan))  # tuples become lists
    if differ := differences(before, plan):
        raise ValueError(
            f"{out}: has results of other options ({'; '.join(differ)}); use the same ones, or "
            "choose another --out"
        )
