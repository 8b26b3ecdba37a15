"""Choose what to label next: the slices or scans whose labels are most uncertain.

The expected information from labels of a slice, if its pixels were independent, is the entropy of
the model's labels summed over the slice. Neighbouring slices and many slices of one patient are
redundant, so they are left out.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pandas as pd

from pyro_stitchnet.data.scans.nifti_geometry import NiftiGeometry
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.prediction.output_files import (
    CHECKSUMS,
    REPORT,
    SLICES,
    map_file,
    read_report,
    verify_result,
)
from pyro_stitchnet.runtime.checksums import read_json, write_json
from pyro_stitchnet.runtime.files import refuse_others, write_atomically
from pyro_stitchnet.runtime.locks import only_run
from pyro_stitchnet.runtime.ranges import Count, Weight, check_ranges
from pyro_stitchnet.runtime.text import csv_text

__all__ = ["Ranking", "export", "rank"]

DRAFTS, IMAGES, MASKS, TODO = "drafts", "imagesTr", "labelsTr", "todo.csv"
RECORD = "rank.json"  # the cases, for later rounds: TODO is the user's to edit; written last
COLUMNS = ("case", "scan", "slice", "entropy", "voxels")


@dataclass(frozen=True)
class Ranking:
    """Options of :func:`rank`.

    Attributes:
        count: number of slices or scans.
        by: rank slices, or whole scans.
        apart: minimum distance of two slices of one scan, mm.
        per_scan: maximum number of slices of one scan.
    """

    count: Count
    by: Literal["slice", "scan"] = "slice"
    apart: Weight = 20.0
    per_scan: Count = 3

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


def rank(results: Path, options: Ranking, *, exclude: Sequence[Path] = ()) -> pd.DataFrame:
    """Rank slices or scans by uncertainty, the most uncertain first.

    Copies of a scan count once.

    Args:
        results: a folder that ``stitchnet predict`` wrote.
        options: number, kind and spread.
        exclude: folders of earlier exports, whose cases are left out.

    Returns:
        Columns ``case``, ``scan``, ``slice`` (from the feet; -1 for a whole scan), ``entropy``
        (nats times cm²; for a scan, the mean of its slices) and ``voxels``, a hash of the scan,
        since scans of different results may have the same name.

    Raises:
        FileNotFoundError: ``results`` has no finished scan, or a folder of ``exclude`` no export.
        ValueError: a file that is read is damaged.
    """
    earlier = [row for folder in exclude for row in _todo(folder)]
    rows, seen = [], set()
    for path in sorted(results.glob(f"*/{REPORT}")):
        report = read_report(path.parent)
        scan, voxels = path.parent.name, report["voxels"]
        if voxels in seen or not report["slices_segmented"]:
            continue
        seen.add(voxels)
        taken = {index for other, index in earlier if other == voxels}
        if -1 in taken:  # the whole scan
            continue
        case = f"{scan}_{voxels[:8]}"
        if options.by == "scan":
            rows.append((case, scan, -1, report["entropy"], voxels))
            continue
        verify_result(path.parent, report, SLICES)
        slices = pd.read_csv(path.parent / SLICES)
        for index in _spread(slices, options, taken):
            entropy = slices["entropy"].iloc[index]
            rows.append((f"{case}_slice{index:04d}", scan, index, entropy, voxels))
    if not rows:
        raise FileNotFoundError(
            f"{results}: no finished scan with lungs; give a folder that `stitchnet predict "
            "INPUT --model MODEL --out FOLDER` wrote"
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
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
        FileExistsError: ``out`` has an export, or other files.
        FileNotFoundError: a volume of a scan is missing.
        ValueError: one is damaged.
        BlockingIOError: another run writes to ``out``.
    """
    needed = [map_file(name) for name in ("scan", "labels")]
    for scan in sorted(set(table["scan"])):
        report = read_report(results / scan)
        if needed[0] not in report[CHECKSUMS]:
            raise FileNotFoundError(
                f"{results / scan / needed[0]}: missing; `stitchnet predict` writes it with "
                "--save-scan"
            )
        verify_result(results / scan, report, *needed)
    with only_run(out):
        if (out / RECORD).exists():
            raise FileExistsError(f"{out}: already has cases to label; choose another --out")
        refuse_others(out, own=(IMAGES, MASKS, DRAFTS))
        for folder in (IMAGES, MASKS, DRAFTS):
            (out / folder).mkdir(exist_ok=True)
        for case, scan, index in table[["case", "scan", "slice"]].itertuples(index=False):
            for name, place in (("scan", f"{IMAGES}/{case}_0000"), ("labels", f"{DRAFTS}/{case}")):
                _copy(results / scan / map_file(name), out / f"{place}.nii.gz", index)
        description = {
            "channel_names": {"0": "CT"},
            "labels": {name: value for value, name in enumerate(LABELS)},
            "numTraining": len(table),
            "file_ending": ".nii.gz",
            "patients": dict(zip(table["case"], "scan-" + table["voxels"].str[:8], strict=True)),
        }
        write_atomically(out / "dataset.json", json.dumps(description, indent=2) + "\n")
        write_atomically(out / TODO, csv_text(table))
        cases = table[["voxels", "slice"]].to_dict("records")
        write_json(out / RECORD, {"cases": cases})


def _spread(slices: pd.DataFrame, options: Ranking, taken: Collection[int]) -> Iterator[int]:
    """The most uncertain slices of a scan, apart from each other and from those taken earlier."""
    heights = slices["height_mm"].to_numpy()
    occupied = [float(heights[index]) for index in taken]
    order = np.argsort(-slices["entropy"].to_numpy(), kind="stable")
    left = options.per_scan
    for index in order[slices["entropy"].to_numpy()[order] > 0].tolist():
        if (
            left
            and index not in taken
            and all(abs(heights[index] - other) >= options.apart for other in occupied)
        ):
            occupied.append(float(heights[index]))
            left -= 1
            yield index


def _copy(source: Path, target: Path, index: int) -> None:
    """Copy a volume (index -1), or one axial slice of it, from the feet, with its affine."""
    image = nib.Nifti1Image.from_filename(source, keep_file_open=True)
    if index >= 0:
        image = _in_mm(image)
        orientation = nib.orientations.io_orientation(image.affine)
        axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
        at = index if orientation[axis, 1] > 0 else image.shape[axis] - 1 - index
        box = [slice(None)] * 3
        box[axis] = slice(at, at + 1)
        image = image.slicer[tuple(box)]
    # The mark of a map, which `stitchnet prepare` refuses as a scan.
    image.header["descrip"] = b""
    nib.save(image, target)


def _in_mm(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """The image with one geometry, in mm; a map states its own as its scan does."""
    affine = NiftiGeometry.of(image.header).affine
    image.header.set_xyzt_units("mm")
    return nib.Nifti1Image(image.dataobj, affine, image.header)


def _todo(folder: Path) -> Iterator[tuple[str, int]]:
    """The cases of an earlier export: ``voxels`` and ``slice``.

    Raises:
        FileNotFoundError: the folder has no export.
        ValueError: the list of its cases is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; give a folder that `stitchnet rank` wrote")
    yield from ((case["voxels"], case["slice"]) for case in read_json(path)["cases"])
