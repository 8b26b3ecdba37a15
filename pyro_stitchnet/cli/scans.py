"""Commands that ask a trained model about scans: `predict`, `rank`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

__all__ = ["predict", "rank"]

TOLD = 5  # failed scans at most that are told on the screen


def predict(
    inputs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="INPUT [INPUT ...]", help_behavior_hint="(required)"),
    ],
    model: Path,
    out: Path,
    lungs: Literal["classical", "lungmask", "none"] | None = None,
    size: int | None = None,
    read_out: Literal["guide", "prior", "posterior"] | None = None,
    samples: int = 1,
    views: int = 1,
    decision: Literal["likeliest", "dice"] = "likeliest",
    least_patch: float = 0,
    batch_size: int = 8,
    seed: int = 0,
    save_scan: bool = True,
    save_healthy: bool = False,
    save_seg: bool = True,
    keep_identifiers: bool = False,
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
) -> None:
    """Segment CT scans: labels, uncertainty and figures of each, on its own grid. For research use.

    Run again, it goes on. A scan that cannot be segmented is listed in failed.csv, and the exit
    status is 1.

    Args:
        inputs: volumes (NIfTI, NRRD, MetaImage), pictures, and folders of them or of DICOM series,
            nested as they may be.
        model: a checkpoint, the model.pt of a run.
        out: folder for the results: a folder a scan, scans.csv, failed.csv.
        lungs: who finds the lung field, where not as in training: classical for whole CT scans
            and a model that was trained on slices cropped to the lungs.
        size: rows and columns of a slice, where the checkpoint does not say.
        read_out: segmentation by q(y | x), p(y | z) or p(y | x, z); by default the last where the
            model has q(y | x), else p(y | z).
        samples: draws of z to average over; 0 takes the mean of each level.
        views: flips and quarter turns of each slice to average over, 1 to 8.
        decision: each pixel's likeliest label, or the infection of the greatest expected Dice,
            which finds more where the model is unsure.
        least_patch: pixels, of the picture that the model sees, that a patch of consolidation has
            at least; what is smaller becomes ground glass.
        batch_size: slices at a time.
        seed: of the draws.
        save_scan: write the scan as the model saw it, windowed, beside the maps; for `view`.
        save_healthy: write the scan with its lesions drawn as healthy lung.
        save_seg: write a DICOM SEG for DICOM input.
        keep_identifiers: let results name the patient as DICOM headers do.
        device: "auto" takes a GPU if there is one.
        workers: processes; by default as many as cores, or four that share a GPU.
        scheduler: address of a dask scheduler whose workers do the work, on many machines.
        progress: show a progress bar.
    """
    from pyro_stitchnet.prediction.many_scans import FAILED, predict_scans
    from pyro_stitchnet.prediction.one_scan import Model
    from pyro_stitchnet.prediction.scan_report import DISCLAIMER
    from pyro_stitchnet.prediction.segmenter import Options

    options = Options(read_out, samples, views, batch_size, seed, decision, least_patch)
    done = predict_scans(
        inputs,
        Model(model, device, options, lungs, size),
        out,
        extras=("scan",) * save_scan + ("healthy",) * save_healthy,
        seg=save_seg,
        keep_identifiers=keep_identifiers,
        workers=workers,
        scheduler=scheduler,
        progress=progress,
    )
    print(f"scans segmented: {done.segmented}, before: {done.before}: {out}")
    print(DISCLAIMER)
    if len(done.failed):
        for source, reason in done.failed.head(TOLD).itertuples(index=False):
            print(f"{source}: {reason}", file=sys.stderr)
        print(f"scans that failed: {len(done.failed)}, see {out / FAILED}", file=sys.stderr)
        sys.exit(1)


def rank(
    results: tyro.conf.Positional[Path],
    out: Path,
    count: int = 20,
    by: Literal["slice", "scan"] = "slice",
    apart: float = 20.0,
    per_scan: int = 3,
    besides: tuple[Path, ...] = (),
) -> None:
    """Choose what to label next, the least sure first, and copy it for 3D Slicer or ITK-SNAP.

    Corrected masks go to labelsTr; `stitchnet prepare` takes the folder back.

    Args:
        results: a folder that `stitchnet predict` wrote.
        out: a new folder: images, the model's labels as drafts, todo.csv.
        count: how many.
        by: slices, or whole scans.
        apart: mm between two slices of one scan, at least.
        per_scan: slices of one scan, at most.
        besides: folders of earlier rounds, whose cases are left out.
    """
    from pyro_stitchnet.prediction.ranking import Ranking, export
    from pyro_stitchnet.prediction.ranking import rank as ranked

    table = ranked(results, Ranking(count, by, apart, per_scan), besides=besides)
    export(results, table, out)
    print(table.to_string(index=False))
    print(f"to label: {len(table)}: {out}; save corrected masks as {out}/labelsTr/CASE.nii.gz")
