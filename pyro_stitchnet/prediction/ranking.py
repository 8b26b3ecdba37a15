"""What to label next: the slices or scans of which a model's labels are least sure.

The information that labels of a slice are expected to give, were its pixels independent, is the
entropy of the model's labels summed over it. Neighbouring slices tell the same, and so do many of
one patient: they are left out.
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
from pyro_stitchnet.prediction.scan_report import REPORT, SLICES, read_report
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["Ranking", "export", "rank"]

DRAFTS, IMAGES, MASKS, TODO = "drafts", "imagesTr", "labelsTr", "todo.csv"
COLUMNS = ("case", "scan", "slice", "doubt")


@dataclass(frozen=True)
class Ranking:
    """How to choose.

    Attributes:
        count: how many.
        by: slices, or whole scans.
        apart: mm between two slices of one scan, at least.
        per_scan: slices of one scan, at most.
    """

    count: int
    by: Literal["slice", "scan"] = "slice"
    apart: float = 20.0
    per_scan: int = 3

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name, least in (("count", 1), ("apart", 0), ("per_scan", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def rank(results: Path, how: Ranking, *, besides: Sequence[Path] = ()) -> pd.DataFrame:
    """The slices or scans to label next, the least sure first.

    Args:
        results: a folder that `stitchnet predict` wrote.
        how: to choose.
        besides: folders exported earlier, whose cases are left out.

    Returns:
        The columns ``case``, ``scan``, ``slice`` (from the feet; -1 for a whole scan) and
        ``doubt`` (nats times cm²; of a scan, the mean of its slices).

    Raises:
        FileNotFoundError: there is no finished scan in ``results``, or no export in ``besides``.
    """
    earlier = pd.concat([_todo(folder) for folder in besides]) if besides else None
    rows = []
    for path in sorted(results.glob(f"*/{REPORT}")):
        report = read_report(path.parent)
        if report is None or not report.get("slices_segmented"):
            continue
        scan = path.parent.name
        if how.by == "scan":
            rows.append((scan, scan, -1, report["doubt"]))
            continue
        slices = pd.read_csv(path.parent / SLICES)
        seen = [] if earlier is None else list(earlier["slice"][earlier["scan"] == scan])
        for index in _spread(slices, how, seen):
            row = slices.iloc[index]
            rows.append((f"{scan}_slice{index:04d}", scan, index, row["doubt"]))
    if not rows:
        raise FileNotFoundError(
            f"{results}: holds no finished scan with lungs; `stitchnet predict INPUT --model MODEL "
            f"--out {results}` makes some"
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if earlier is not None:
        table = table[~table["case"].isin(earlier["case"])]
    table = table.sort_values(["doubt", "case"], ascending=[False, True])
    return table.head(how.count).reset_index(drop=True)


def export(results: Path, table: pd.DataFrame, out: Path) -> None:
    """Write what was chosen for 3D Slicer, ITK-SNAP and, once corrected, `stitchnet prepare`.

    The folder has nnU-Net's raw layout: ``imagesTr/CASE_0000.nii.gz``, and ``labelsTr/``, which is
    empty: there go the corrected masks, called CASE.nii.gz. The model's own labels are in
    ``drafts/CASE.nii.gz``. So nothing that nobody looked at is ever trained on as true.

    Args:
        results: a folder that `stitchnet predict` wrote.
        table: what :func:`rank` gave for it.
        out: a new folder.

    Raises:
        FileExistsError: ``out`` holds an export.
        FileNotFoundError: a scan's volumes were not written or are gone.
    """
    if (out / TODO).exists():
        raise FileExistsError(f"{out}: holds cases to label already; choose another --out")
    for scan in set(table["scan"]):
        for name in ("scan", "labels"):
            if not (path := results / scan / f"{name}.nii.gz").is_file():
                raise FileNotFoundError(
                    f"{path}: missing; `stitchnet predict` writes it with --save-scan"
                )
    for folder in (IMAGES, MASKS, DRAFTS):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for case, scan, index in table[["case", "scan", "slice"]].itertuples(index=False):
        for name, place in (("scan", f"{IMAGES}/{case}_0000"), ("labels", f"{DRAFTS}/{case}")):
            _copy(results / scan / f"{name}.nii.gz", out / f"{place}.nii.gz", index)
    described = {
        "channel_names": {"0": "CT"},
        "labels": {name: value for value, name in enumerate(LABELS)},
        "numTraining": len(table),
        "file_ending": ".nii.gz",
        "patients": dict(zip(table["case"], table["scan"], strict=True)),
    }
    write_atomically(out / "dataset.json", json.dumps(described, indent=2) + "\n")
    write_atomically(out / TODO, table.to_csv(index=False))


def _spread(slices: pd.DataFrame, how: Ranking, seen: Sequence[int]) -> Iterator[int]:
    """The least sure slices of a scan that lie apart from each other and those seen."""
    heights = slices["height_mm"].to_numpy()
    taken = [float(heights[index]) for index in seen]
    order = np.argsort(-slices["doubt"].to_numpy(), kind="stable")
    left = how.per_scan
    for index in order[slices["doubt"].to_numpy()[order] > 0].tolist():
        if left and all(abs(heights[index] - other) >= how.apart for other in taken):
            taken.append(float(heights[index]))
            left -= 1
            yield index


def _copy(source: Path, target: Path, index: int) -> None:
    """A volume, or one axial slice of it, from the feet, in its own place."""
    if index < 0:
        shutil.copyfile(source, target)
        return
    image = nib.Nifti1Image.from_filename(source, keep_file_open=True)
    turn = nib.orientations.io_orientation(image.affine)
    axis = int(np.flatnonzero(turn[:, 0] == 2)[0])
    at = index if turn[axis, 1] > 0 else image.shape[axis] - 1 - index
    box = [slice(None)] * 3
    box[axis] = slice(at, at + 1)
    nib.save(image.slicer[tuple(box)], target)


def _todo(folder: Path) -> pd.DataFrame:
    path = folder / TODO
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; give a folder that `stitchnet rank` wrote")
    return pd.read_csv(path, dtype={"case": str, "scan": str})
