"""``report.json`` and ``slices.csv`` of a scan, and ``scans.csv`` of all scans."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.labels import CONSOLIDATION, GGO
from pyro_stitchnet.prediction.maps import Totals
from pyro_stitchnet.prediction.measurements import measurements_of, voxel_ml
from pyro_stitchnet.prediction.output_files import CHECKSUMS, DISCLAIMER, REPORT, SCANS, read_report
from pyro_stitchnet.prediction.slice_segmenter import SliceSegmenter
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.text import csv_text

__all__ = ["fingerprint", "make_report", "slices_table", "write_scans_table"]

SEVERITY = (
    "after Pan et al., Radiology 295:715 (2020), with thirds of the right lung and halves of the "
    "left in place of the five lobes, which are not segmented"
)

# Thresholds of the warnings; beyond them a scan differs from typical training scans.
SLICE_DISTANCE = 5.0  # mm
CUT_OFF = 0.1  # lung on the first or last slice, as a share of the largest slice's lung
LUNG_VOLUME = (1000.0, 9000.0)  # ml
HEALTHY_HU = (-950.0, -550.0)  # mean of healthy lung
CONFIDENCE = 0.8
SMALLER_SIDE = 0.1  # share of the lung
EDGE = 0.01  # share of the lung's voxels in the first and last row and column


def make_report(
    scan: str, segmenter: SliceSegmenter, stack: Stack, totals: Totals, files: Mapping[str, str]
) -> dict[str, Any]:
    """Collect all results of one scan, as JSON data.

    Args:
        scan: its name.
        segmenter: the model.
        stack: the scan.
        totals: the result.
        files: file names of the maps, by map.
    """
    ml = voxel_ml(stack.affine) if stack.spaced else None
    confidence = totals.confidence
    report: dict[str, Any] = {
        "scan": scan,
        "voxels": fingerprint(stack),
        "model": f"{segmenter.name} sha256:{segmenter.digest[:12]}",
        "options": asdict(segmenter.options),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": f"pyro-stitchnet {version('pyro-stitchnet')}",
        **measurements_of(totals.tally, ml, hounsfield=stack.hounsfield),
        "severity_score_is": SEVERITY,
        "confidence": None if confidence is None else round(confidence, 4),
        "entropy": round(float(_entropy(totals, stack).sum() / max(totals.segmented, 1)), 3),
        "shape": list(stack.shape),
        "spacing_mm": [round(float(v), 4) for v in np.linalg.norm(stack.affine[:3, :3], axis=0)],
        "slices_segmented": totals.segmented,
        "files": dict(files),
        "disclaimer": DISCLAIMER,
    }
    uncropped = segmenter.preprocessing.lungs == "none"
    report["warnings"] = [*stack.warnings, *_warnings(report, stack, totals, uncropped)]
    return report


def fingerprint(stack: Stack) -> str:
    """Return a hash of a scan's grey values, which identifies a scan under any name."""
    digest = hashlib.sha256(repr(stack.shape).encode())
    for one in stack.slices:
        digest.update(np.ascontiguousarray(one, "<f4").data)
    return digest.hexdigest()[:16]


def slices_table(stack: Stack, totals: Totals) -> pd.DataFrame:
    """The table of axial slices, from the feet.

    Returns:
        Columns ``slice``; ``height_mm`` above the lowest slice; ``lung_cm2``, ``ggo_cm2`` and
        ``consolidation_cm2``; and ``entropy``, the entropy of the labels summed over the slice's
        area, nats times cm², by which :mod:`~pyro_stitchnet.prediction.ranking` orders slices.
    """
    areas = totals.tally.counts.sum(1) * _pixel_cm2(stack)
    return pd.DataFrame(
        {
            "slice": np.arange(len(areas)),
            "height_mm": np.arange(len(areas)) * stack.spacing[0],
            "lung_cm2": areas[:, 1:].sum(1),
            "ggo_cm2": areas[:, GGO],
            "consolidation_cm2": areas[:, CONSOLIDATION],
            "entropy": _entropy(totals, stack),
        }
    ).round(4)


def write_scans_table(out: Path) -> None:
    """Write the reports of all finished scans in ``out`` as ``scans.csv``, a row per scan.

    A damaged report is left out: ``failed.csv`` lists its scan.
    """
    rows = []
    for path in sorted(out.glob(f"*/{REPORT}")):
        with suppress(ValueError):
            rows.append(dict(_flat(read_report(path.parent))))
    write_atomically(out / SCANS, csv_text(pd.DataFrame(rows)))


def _flat(report: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A report's values under names such as left_volumes_ml_ggo."""
    skipped = (
        "files",
        CHECKSUMS,
        "disclaimer",
        "severity_score_is",
        "voxels",
        "package",
        "options",
    )
    for name, value in report.items():
        if name in skipped and not prefix:
            continue
        if isinstance(value, dict):
            inner = prefix if name in ("sides", "thirds") else f"{prefix}{name}_"
            yield from _flat(value, inner)
        elif isinstance(value, list):
            separator = "; " if name == "warnings" else "x"
            yield f"{prefix}{name}", separator.join(map(str, value))
        else:
            yield f"{prefix}{name}", value


def _entropy(totals: Totals, stack: Stack) -> np.ndarray:
    entropy: np.ndarray = totals.entropy * _pixel_cm2(stack)
    return entropy


def _pixel_cm2(stack: Stack) -> float:
    return stack.spacing[1] * stack.spacing[2] / 100


def _warnings(
    report: Mapping[str, Any], stack: Stack, totals: Totals, uncropped: bool
) -> Iterator[str]:
    if not totals.segmented:
        yield "No slice has a lung field; nothing was segmented. Check that this is a chest CT."
        return
    if uncropped and stack.hounsfield:
        yield (
            "The slices were not cropped to the lungs, because the training slices were not, or "
            "were cropped before. If this is a whole CT scan, use --lungs classical."
        )
    if not stack.hounsfield:
        yield "Grey values are not Hounsfield units: black and white levels are guesses."
    if not stack.spaced:
        yield "The file has no voxel spacing: no volumes."
    lung = totals.tally.lung.sum(1)
    if not lung.any():
        yield "The model found no lung in the lung field: no measurements."
        return
    if stack.spacing[0] > SLICE_DISTANCE:
        yield (
            f"Slices are {stack.spacing[0]:.3g} mm apart: small lesions between them are missed, "
            "and volumes are coarse."
        )
    if len(lung) < 3:
        yield "Fewer than three slices: no severity score, and thirds are of little use."
    else:
        for end, name in ((0, "lowest"), (-1, "highest")):
            if lung[end] > CUT_OFF * lung.max():
                yield f"The lungs reach the {name} slice: part of them may be missing."
    if totals.tally.edges > EDGE * lung.sum():
        yield "The lungs reach the edge of the slices: part of them may be missing."
    total = report["volumes_ml"]["lung"]
    if total is not None and len(lung) >= 3 and not LUNG_VOLUME[0] <= total <= LUNG_VOLUME[1]:
        yield (
            f"A lung volume of {total:.0f} ml is unusual for an adult: part of the lungs may be "
            "missing, or the spacing wrong."
        )
    healthy = report["mean_hu"]["healthy"]
    if healthy is not None and not HEALTHY_HU[0] <= healthy <= HEALTHY_HU[1]:
        yield f"A mean of {healthy:.0f} HU is unusual for healthy lung: the units may be wrong."
    sides = [side["volumes_ml"]["lung"] for side in report["sides"].values()]
    if total and min(sides) < SMALLER_SIDE * total:
        yield "One side has less than a tenth of the lung: values per side are unreliable."
    if report["confidence"] < CONFIDENCE:
        yield (
            f"The model is uncertain (mean probability {report['confidence']:.2f}): the scan may "
            "differ from those of its training."
        )
