"""Commands that segment scans: `predict`, `rank`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pyro_stitchnet.data.preprocessing.steps import LungMethod
from pyro_stitchnet.posterior.options import ReadOutOptions
from pyro_stitchnet.runtime.limits import PREDICT_SECONDS
from pyro_stitchnet.runtime.ranges import Count, Positive, Side, Weight, Workers

__all__ = ["predict", "rank"]

DEFAULT_OPTIONS = ReadOutOptions()
SHOWN = 20  # scans


def predict(
    inputs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="INPUT [INPUT ...]", help_behavior_hint="(required)"),
    ],
    model: Path,
    out: Path,
    lungs: LungMethod | None = None,
    size: Side | None = None,
    options: Annotated[
        tyro.conf.OmitArgPrefixes[ReadOutOptions], tyro.conf.arg(name="read-out")
    ] = DEFAULT_OPTIONS,
    save_scan: bool = True,
    save_healthy: bool = False,
    save_seg: bool = True,
    keep_identifiers: bool = False,
    device: str = "auto",
    workers: Workers | None = None,
    scheduler: str | None = None,
    time_limit: Positive = PREDICT_SECONDS,
    progress: bool = True,
) -> None:
    """Segment CT scans: labels, uncertainty and measurements on each scan's grid. For research.

    After an interruption the same command resumes the work. Scans that cannot be segmented are
    listed in failed.csv, and the exit status is 1.

    Args:
        inputs: volumes (NIfTI, NRRD, MetaImage), image files, and folders of these or of DICOM
            series, including nested and linked folders.
        model: a checkpoint, the model.pt of a run.
        out: folder for the results: a subfolder per scan, scans.csv, failed.csv. The file
            OUT.sources.json next to it lists the path of each scan.
        lungs: lung method, in place of that of training. Use classical for whole CT scans if the
            model was trained on slices that were already cropped to the lungs.
        size: rows and columns of the model's input, if the checkpoint does not record them.
        options: how the labels are read out of the model.
        save_scan: write the scan, windowed as for the model; `view` shows it, `rank` needs it.
        save_healthy: write the scan with its lesions replaced by healthy lung.
        save_seg: write a DICOM SEG for DICOM input.
        keep_identifiers: name results after files and folders instead of numbering them, and
            allow their paths and the identifiers of DICOM headers in the results.
        device: "auto" uses a GPU if there is one.
        workers: processes; by default one per core, or four that share a GPU. 0 works in this
            process, which a bad scan may then crash.
        scheduler: address of a dask scheduler whose workers do the work, on several machines.
        time_limit: seconds that one scan may take; a scan that takes longer fails.
        progress: show a progress bar.
    """
    from pyro_stitchnet.prediction.many_scans import predict_scans
    from pyro_stitchnet.prediction.one_scan import ModelSource
    from pyro_stitchnet.prediction.output_files import DISCLAIMER, FAILED, sources_file

    summary = predict_scans(
        inputs,
        ModelSource(model, device, options, lungs, size),
        out,
        extras=("scan",) * save_scan + ("healthy",) * save_healthy,
        seg=save_seg,
        keep_identifiers=keep_identifiers,
        workers=workers,
        scheduler=scheduler,
        time_limit=time_limit,
        progress=progress,
    )
    print(
        f"scans segmented: {summary.segmented}, finished before: {summary.finished_before}: {out}"
    )
    print(f"which scan is which: {sources_file(out)}")
    print(DISCLAIMER)
    # A log may be shared with the results: only the paths of scans that failed get into it.
    if sys.stderr.isatty() and len(summary.sources) <= SHOWN:
        for scan, source in summary.sources.items():
            print(f"{scan}: {source}", file=sys.stderr)
    if len(summary.failed):
        for scan, source, reason in summary.failed.head(SHOWN).itertuples(index=False):
            where = "" if source in reason else f"{source}: "
            print(f"{scan}: {where}{reason}", file=sys.stderr)
        print(f"scans that failed: {len(summary.failed)}, see {out / FAILED}", file=sys.stderr)
        sys.exit(1)


def rank(
    results: tyro.conf.Positional[Path],
    out: Path,
    count: Count = 20,
    by: Literal["slice", "scan"] = "slice",
    apart: Weight = 20.0,
    per_scan: Count = 3,
    exclude: tuple[Path, ...] = (),
) -> None:
    """Choose the most uncertain slices to label next, and copy them for 3D Slicer or ITK-SNAP.

    Save corrected masks to labelsTr; `stitchnet prepare` reads the folder.

    Args:
        results: a folder that `stitchnet predict` wrote.
        out: a new folder for the images, the model's labels as drafts, and todo.csv.
        count: number of slices or scans.
        by: rank slices, or whole scans.
        apart: minimum distance of two slices of one scan, mm.
        per_scan: maximum number of slices of one scan.
        exclude: folders of earlier rounds, whose cases are left out.
    """
    from pyro_stitchnet.prediction.ranking import Ranking, export
    from pyro_stitchnet.prediction.ranking import rank as ranked

    table = ranked(results, Ranking(count, by, apart, per_scan), exclude=exclude)
    export(results, table, out)
    print(table.to_string(index=False))
    print(f"to label: {len(table)}: {out}; save corrected masks as {out}/labelsTr/CASE.nii.gz")
