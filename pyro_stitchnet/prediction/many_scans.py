"""Segmenting many scans, over cores or machines; safe to stop and resume."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from pyro_stitchnet.prediction.inputs import PLAN, find_inputs, named
from pyro_stitchnet.prediction.one_scan import Model, Outcome, ScanUnit, keep_loaded
from pyro_stitchnet.prediction.scan_report import read_report, write_table
from pyro_stitchnet.prediction.segmenter import Options
from pyro_stitchnet.runtime.files import naming, write_atomically
from pyro_stitchnet.runtime.workers import work

__all__ = ["FAILED", "Summary", "predict_scans"]

FAILED = "failed.csv"
SHARING = 4  # workers at most that share a GPU


@dataclass(frozen=True)
class Summary:
    """What became of all scans.

    Attributes:
        segmented: how many this call segmented.
        before: how many were finished already.
        failed: of each that failed, its source and the reason.
    """

    segmented: int
    before: int
    failed: pd.DataFrame


def predict_scans(
    inputs: Sequence[Path],
    model: Model,
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

    Killed or interrupted, the same call goes on where it stopped: a scan is finished when its
    folder is there. A scan that cannot be segmented is listed in ``failed.csv``, and the others go
    on.

    Args:
        inputs: as for :func:`~pyro_stitchnet.prediction.inputs.find_inputs`.
        model: the model.
        out: folder for the results.
        extras: maps beside the usual ones: "scan", "healthy".
        seg: whether DICOM input gets a DICOM SEG.
        keep_identifiers: whether results may say what DICOM headers say of the patient.
        workers: processes on this machine; 1 works in this process. By default as many as there
            are cores, or four that share a GPU, and not more than scans.
        scheduler: address of a dask scheduler whose workers do the work instead, on machines that
            see the same files.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the model does not say how its slices were prepared, ``out`` holds results of
            another one, or an option is out of its range.
        OSError: ``out`` cannot be written.
        KeyboardInterrupt: the run was stopped; the same call goes on.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    segmenter = model.load()  # what is wrong with it is said before any work
    model = replace(model, digest=segmenter.digest)
    keep_loaded(model, segmenter)
    out = out.absolute()
    found, bad = find_inputs(inputs)
    _keep_plan(out, {
        "model": segmenter.digest, "preprocessing": asdict(segmenter.preprocessing),
        "options": asdict(segmenter.options), "extras": sorted(extras), "seg": seg,
        "keep_identifiers": keep_identifiers,
    })  # fmt: skip
    taken = {path.name: _key(path) for path in out.iterdir() if not path.name.startswith(".")}
    done = set(taken.values())
    waiting = {
        name: one
        for name, one in named(found, taken, keep=keep_identifiers).items()
        if one.key not in done
    }
    if workers is None:
        most = SHARING if segmenter.device.type == "cuda" else os.cpu_count() or 1
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
                total=len(found),
                completed=len(found) - len(units),
                console=Console(stderr=True),
                disable=not progress,
            ):
                segmented += not outcome.reason
                if outcome.reason:
                    failed.append(outcome)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command goes on") from None
    finally:
        rows = [{"source": one.source, "reason": one.reason} for one in failed]
        table = pd.DataFrame(rows, columns=["source", "reason"])
        write_atomically(out / FAILED, table.to_csv(index=False))
        write_table(out)
    for left in out.glob(".*.tmp"):  # by workers killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return Summary(segmented, len(found) - len(units), table)


def _key(folder: Path) -> str:
    """The key of the scan whose results a folder holds; "" where it holds none."""
    report = read_report(folder)
    return str(report.get("key", "")) if report else ""


def _lost(unit: object) -> Outcome:
    assert isinstance(unit, ScanUnit)
    return unit.failed(
        "the processes that worked on it died one after the other: out of memory? Take fewer "
        "--workers, or run this scan alone"
    )


def _keep_plan(out: Path, plan: dict[str, object]) -> None:
    """Write how scans are segmented here; refuse to add others, segmented otherwise."""
    path = out / PLAN
    text = json.dumps(plan, indent=2) + "\n"
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            # what an earlier version did not ask was as by default
            before["options"] = asdict(Options()) | before["options"]
        except (ValueError, KeyError, TypeError):
            before = {}
        differ = [key for key, value in json.loads(text).items() if before.get(key) != value]
        if differ:
            raise ValueError(
                f"{out}: holds results whose {', '.join(differ)} differ; give what they were made "
                "with, or choose another --out"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
