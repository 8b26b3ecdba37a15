"""Choose what to label next: the slices or scans whose labels are most uncertain.

The expected information from labels of a slice, if its pixels were independent, is the entropy of
the model's labels summed over the slice. Neighbouring slices and many slices of one patient are
redundant, so they are left out.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pandas as pd

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.prediction.output_files import REPORT, SLICES, map_file, read_report
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["Ranking", "export", "rank"]

DRAFTS, IMAGES, MASKS, TODO = "drafts", "imagesTr", "labelsTr", "todo.csv"
COLUMNS = ("case", "scan", "slice", "entropy")


@dataclass(frozen=True)
class Ranking:
    """Options of :func:`rank`.

    Attributes:
        count: number of slices or scans.
        by: rank slices, or whole scans.
        apart: minimum distance of two slices of one scan, mm.
        per_scan: maximum number of slices of one scan.
    """

    count: int
    by: Literal["slice", "scan"] = "slice"
    apart: float = 20.0
    per_scan: int = 3

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("count", 1), ("apart", 0), ("per_scan", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def rank(results: Path, options: Ranking, *, exclude: Sequence[Path] = ()) -> pd.DataFrame:
    """Rank slices or scans by uncertainty, the most uncertain first.

    Args:
        results: a folder that ``stitchnet predict`` wrote.
        options: number, kind and spread.
        exclude: folders of earlier exports, whose cases are left out.

    Returns:
        Columns ``case``, ``scan``, ``slice`` (from the feet; -1 for a whole scan) and ``entropy``
        (nats times cm²; for a scan, the mean of its slices).

    Raises:
        FileNotFoundError: ``results`` has no finished scan, or a folder of ``exclude`` no export.
    """
    earlier = pd.concat([_todo(folder) for folder in exclude]) if exclude else None
    rows = []
    for path in sorted(results.glob(f"*/{REPORT}")):
        report = read_report(path.parent)
        if report is None or not report.get("slices_segmented"):
            continue
        scan = path.parent.name
        if options.by == "scan":
            rows.append((scan, scan, -1, report["entropy"]))
            continue
        slices = pd.read_csv(path.parent / SLICES)
        taken = [] if earlier is None else list(earlier["slice"][earlier["scan"] == scan])
        for index in _spread(slices, options, taken):
            row = slices.iloc[index]
            rows.append((f"{scan}_slice{index:04d}", scan, index, row["entropy"]))
    if not rows:
        raise FileNotFoundError(
            f"{results}: no finished scan with lungs; create some with `stitchnet predict INPUT "
            f"--model MODEL --out {results}`"
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if earlier is not None:
        table = table[~table["case"].isin(earlier["case"])]
    table = table.sort_values(["entropy", "case"], ascending=[False, True])
    return table.head(options.count).reset_index(drop=True)


def export(results: Path, table: pd.DataFrame, out: Path) -> None:
    """Write ranked cases for 3D Slicer, ITK-SNAP and, once corrected, ``stitchnet prepare``.

    The folder has nnU-Net's raw layout: ``imagesTr/CASE_0000.nii.gz`` and an empty ``labelsTr/``
    for the corrected masks, ``CASE.nii.gz``. The model's own labels are in ``drafts/CASE.nii.gz``,
    so uncorrected labels are never used for training.

    Args:
        results: a folder that ``stitchnet predict`` wrote.
        table: from :func:`rank`.
        out: a new folder.

    Raises:
        FileExistsError: ``out`` has an export.
        FileNotFoundError: a volume of a scan is missing.
    """
    if (out / TODO).exists():
        raise FileExistsError(f"{out}: already has cases to label; choose another --out")
    for scan in set(table["scan"]):
        for name in ("scan", "labels"):
            if not (path := results / scan / map_file(name)).is_file():
                raise FileNotFoundError(
                    f"{path}: missing; `stitchnet predict` writes it with --save-scan"
                )
    for folder in (IMAGES, MASKS, DRAFTS):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for case, scan, index in table[["case", "scan", "slice"]].itertuples(index=False):
        for name, place in (("scan", f"{IMAGES}/{case}_0000"), ("labels", f"{DRAFTS}/{case}")):
            _copy(results / scan / map_file(name), out / f"{place}.nii.gz", index)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {name: value for value, name in enumerate(LABELS)},
        "numTraining": len(table),
        "file_ending": ".nii.gz",
        "patients": dict(zip(table["case"], table["scan"], strict=True)),
    }
    write_atomically(out / "dataset.json", json.dumps(description, indent=2) + "\n")
    write_atomically(out / TODO, table.to_csv(index=False))


def _spread(slices: pd.DataFrame, options: Ranking, taken: Sequence[int]) -> Iterator[int]:
    """The most uncertain slices of a scan, apart from each other and from those taken earlier."""
    heights = slices["height_mm"].to_numpy()
    occupied = [float(heights[index]) for index in taken]
    order = np.argsort(-slices["entropy"].to_numpy(), kind="stable")
    left = options.per_scan
    for index in order[slices["entropy"].to_numpy()[order] > 0].tolist():
        if left and all(abs(heights[index] - other) >= options.apart for other in occupied):
            occupied.append(float(heights[index]))
            left -= 1
            yield index


def _copy(source: Path, target: Path, index: int) -> None:
    """Copy a volume (index -1), or one axial slice of it, from the feet, with its affine."""
    if index < 0:
        shutil.copyfile(source, target)
        return
    image = nib.Nifti1Image.from_filename(source, keep_file_open=True)
    orientation = nib.orientations.io_orientation(image.affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    at = index if orientation[axis, 1] > 0 else image.shape[axis] - 1 - index
    box = [slice(None)] * 3
    box[axis] = slice(at, at + 1)
    nib.save(image.slicer[tuple(box)], target)


def _todo(folder: Path) -> pd.DataFrame:
    path = folder / TODO
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; give a folder that `stitchnet rank` wrote")
    return pd.read_csv(path, dtype={"case": str, "scan": str})
