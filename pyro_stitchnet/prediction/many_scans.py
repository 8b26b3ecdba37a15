"""Segment many scans with several processes or machines; an interrupted run can be resumed."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from pyro_stitchnet.prediction.inputs import assign_names, find_inputs
from pyro_stitchnet.prediction.one_scan import ModelSource, Outcome, ScanUnit, cache_model
from pyro_stitchnet.prediction.output_files import FAILED, PLAN, read_report
from pyro_stitchnet.prediction.scan_report import write_scans_table
from pyro_stitchnet.runtime.files import naming, write_atomically
from pyro_stitchnet.runtime.workers import work

__all__ = ["Summary", "predict_scans"]

WORKERS_PER_GPU = 4


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        segmented: number of scans that this run segmented.
        finished_before: number of scans that an earlier run segmented.
        failed: scans that failed, with columns ``source`` and ``reason``.
    """

    segmented: int
    finished_before: int
    failed: pd.DataFrame


def predict_scans(
    inputs: Sequence[Path],
    model: ModelSource,
    out: Path,
    *,
    extras: tuple[str, ...] = (),
    seg: bool = True,
    keep_identifiers: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> Summary:
    """Segment scans and write a folder of results for each.

    After an interruption the same call resumes the work: a scan is finished if its folder exists. A
    scan that cannot be segmented is listed in ``failed.csv``, and the others continue.

    Args:
        inputs: as for :func:`~pyro_stitchnet.prediction.inputs.find_inputs`.
        model: the model.
        out: the results folder.
        extras: optional maps to write: "scan", "healthy".
        seg: whether to write a DICOM SEG for DICOM input.
        keep_identifiers: whether results may contain the identifiers of DICOM headers.
        workers: processes on this machine; 1 works in this process. By default one per core, or
            four that share a GPU, but at most one per scan.
        scheduler: address of a dask scheduler whose workers do the work instead, on machines that
            share the file system.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: the model does not exist.
        ValueError: the model does not record its preprocessing, ``out`` has results of another
            model or other options, or an option is invalid.
        OSError: ``out`` cannot be written.
        KeyboardInterrupt: the run was stopped; the same call resumes it.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    segmenter = model.load()  # so that errors of the model are raised before any work
    model = replace(model, digest=segmenter.digest)
    cache_model(model, segmenter)
    out = out.absolute()
    scans, bad = find_inputs(inputs)
    _write_plan(out, {
        "model": segmenter.digest, "preprocessing": asdict(segmenter.preprocessing),
        "options": asdict(segmenter.options), "extras": sorted(extras), "seg": seg,
        "keep_identifiers": keep_identifiers,
    })  # fmt: skip
    taken = {path.name: _key(path) for path in out.iterdir() if not path.name.startswith(".")}
    finished = set(taken.values())
    waiting = {
        name: one
        for name, one in assign_names(scans, taken, keep_identifiers=keep_identifiers).items()
        if one.key not in finished
    }
    if workers is None:
        most = WORKERS_PER_GPU if segmenter.device.type == "cuda" else os.cpu_count() or 1
        workers = max(1, min(most, len(waiting)))
    alone = workers == 1 and scheduler is None
    threads = None if alone else max(1, (os.cpu_count() or 1) // workers)
    units = [
        ScanUnit(one, name, out, model, extras, seg, keep_identifiers, threads)
        for name, one in waiting.items()
    ]
    failed = [Outcome("", source, reason) for source, reason in bad]
    segmented = 0
    try:
        with naming(out):
            for outcome in track(
                work(units, workers, scheduler, lost=_lost),
                "segmenting",
                total=len(scans),
                completed=len(scans) - len(units),
                console=Console(stderr=True),
                disable=not progress,
            ):
                segmented += not outcome.reason
                if outcome.reason:
                    failed.append(outcome)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; run the same command again to resume") from None
    finally:
        rows = [{"source": one.source, "reason": one.reason} for one in failed]
        table = pd.DataFrame(rows, columns=["source", "reason"])
        write_atomically(out / FAILED, table.to_csv(index=False))
        write_scans_table(out)
    for remains in out.glob(".*.tmp"):  # of killed workers
        shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
    return Summary(segmented, len(scans) - len(units), table)


def _key(folder: Path) -> str:
    """The key of the scan whose results a folder holds; "" if it holds none."""
    report = read_report(folder)
    return str(report.get("key", "")) if report else ""


def _lost(unit: object) -> Outcome:
    assert isinstance(unit, ScanUnit)
    return unit.failed(
        "several worker processes died at this scan, possibly out of memory; use fewer --workers, "
        "or run this scan alone"
    )


def _write_plan(out: Path, plan: dict[str, object]) -> None:
    """Record model and options in the results folder; refuse a folder with a different record."""
    path = out / PLAN
    text = json.dumps(plan, indent=2) + "\n"
    if path.exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            before = {}
        differing = [key for key, value in json.loads(text).items() if before.get(key) != value]
        if differing:
            raise ValueError(
                f"{out}: has results with other values of {', '.join(differing)}; use the same "
                "values, or choose another --out"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
