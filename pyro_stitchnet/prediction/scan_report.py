"""``report.json`` of a scan, and the table of all scans."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_stitchnet.data.scans.readers import PICTURES
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.labels import CONSOLIDATION, GGO
from pyro_stitchnet.prediction.inputs import ARRAYS
from pyro_stitchnet.prediction.maps import Totals
from pyro_stitchnet.prediction.measurements import figures_of, voxel_ml
from pyro_stitchnet.prediction.segmenter import Segmenter
from pyro_stitchnet.runtime.files import write_atomically

__all__ = [
    "DISCLAIMER", "REPORT", "SCANS", "SLICES", "make_report", "read_report", "slices_table",
    "write_table",
]  # fmt: skip

REPORT, SCANS, SLICES = "report.json", "scans.csv", "slices.csv"

DISCLAIMER = (
    "For research use only. Not a medical device, not validated for diagnosis or treatment; no "
    "finding here replaces a radiologist's."
)

SEVERITY = (
    "after Pan et al., Radiology 295:715 (2020), with thirds of the right lung and halves of the "
    "left in place of the five lobes, which are not segmented"
)

# Beyond these a scan is not like those that models are made for, and a report says so.
THICK = 5.0  # mm between slices
CUT = 0.1  # of the largest slice's lung, on the first or last slice
LUNGS = (1000.0, 9000.0)  # ml
AERATED = (-950.0, -550.0)  # mean HU of healthy lung
UNSURE = 0.8  # confidence
ONE_SIDE = 0.1  # of the lung


def make_report(
    scan: str, source: str, key: str, segmenter: Segmenter, stack: Stack, totals: Totals,
    files: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    """What is said of one scan, as JSON has it.

    Args:
        scan: its name.
        source: the name of its file or folder.
        key: tells it from all other scans.
        segmenter: the model.
        stack: the scan.
        totals: what the model made of it.
        files: names of the maps and of their files.
    """
    known = not stack.source.name.lower().endswith((*PICTURES, *ARRAYS))
    found = figures_of(
        totals.tally, voxel_ml(stack.affine) if known else None, hounsfield=stack.hounsfield
    )
    confidence = totals.confidence
    report: dict[str, Any] = {
        "scan": scan,
        "source": source,
        "key": key,
        "model": f"{segmenter.name} sha256:{segmenter.digest[:12]}",
        "options": asdict(segmenter.options),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": f"pyro-stitchnet {version('pyro-stitchnet')}",
        **found,
        "severity_score_is": SEVERITY,
        "confidence": None if confidence is None else round(confidence, 4),
        "doubt": round(float(_doubt(totals, stack).sum() / max(totals.segmented, 1)), 3),
        "shape": list(stack.shape),
        "spacing_mm": [round(float(v), 4) for v in _grid_spacing(stack.affine)],
        "slices_segmented": totals.segmented,
        "files": dict(files),
        "disclaimer": DISCLAIMER,
    }
    whole = segmenter.preprocessing.lungs == "none"
    report["warnings"] = list(_warnings(report, stack, totals, known, whole))
    return report


def slices_table(stack: Stack, totals: Totals) -> pd.DataFrame:
    """A row an axial slice, from the feet.

    Returns:
        ``slice``; ``height_mm`` above the lowest; ``lung_cm2``, ``ggo_cm2`` and
        ``consolidation_cm2``; and ``doubt``, the entropy of its labels summed over its area, nats
        times cm², by which :mod:`~pyro_stitchnet.prediction.ranking` orders slices.
    """
    areas = totals.tally.counts.sum(1) * _pixel_cm2(stack)
    return pd.DataFrame(
        {
            "slice": np.arange(len(areas)),
            "height_mm": np.arange(len(areas)) * stack.spacing[0],
            "lung_cm2": areas[:, 1:].sum(1),
            "ggo_cm2": areas[:, GGO],
            "consolidation_cm2": areas[:, CONSOLIDATION],
            "doubt": _doubt(totals, stack),
        }
    ).round(4)


def read_report(folder: Path) -> dict[str, Any] | None:
    """The report in a scan's folder; None where there is none, or only a part of one."""
    try:
        said = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def write_table(out: Path) -> pd.DataFrame:
    """Write the figures of all finished scans in ``out`` as ``scans.csv``, a row each."""
    reports = [read_report(path.parent) for path in sorted(out.glob(f"*/{REPORT}"))]
    table = pd.DataFrame([dict(_flat(report)) for report in reports if report])
    write_atomically(out / SCANS, table.to_csv(index=False))
    return table


def _flat(report: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """A report's figures by names such as left_volumes_ml_ggo."""
    skipped = ("files", "disclaimer", "severity_score_is", "key", "package", "options")
    for name, value in report.items():
        if name in skipped and not above:
            continue
        if isinstance(value, dict):
            inside = above if name in ("sides", "thirds") else f"{above}{name}_"
            yield from _flat(value, inside)
        elif isinstance(value, list):
            sign = "; " if name == "warnings" else "x"
            yield f"{above}{name}", sign.join(map(str, value))
        else:
            yield f"{above}{name}", value


def _doubt(totals: Totals, stack: Stack) -> np.ndarray:
    doubt: np.ndarray = totals.doubt * _pixel_cm2(stack)
    return doubt


def _pixel_cm2(stack: Stack) -> float:
    return stack.spacing[1] * stack.spacing[2] / 100


def _grid_spacing(affine: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.linalg.norm(affine[:3, :3], axis=0)
    return lengths


def _warnings(
    report: Mapping[str, Any], stack: Stack, totals: Totals, spacing_known: bool, whole: bool
) -> Iterator[str]:
    if not totals.segmented:
        yield "No slice has a lung field: is it a chest CT? Nothing was segmented."
        return
    if whole and stack.hounsfield:
        yield (
            "The slices were not cropped to the lungs, since those of training were not, or were "
            "before: if this is a whole CT, segment it with --lungs classical."
        )
    if not stack.hounsfield:
        yield "Grey values are not Hounsfield units: black and white were guessed."
    if not spacing_known:
        yield "The file does not say how large voxels are: no volumes."
    lung = totals.tally.lung.sum(1)
    if not lung.any():
        yield "The model finds no lung in the lung field: no figures."
        return
    if stack.spacing[0] > THICK:
        yield (
            f"Slices are {stack.spacing[0]:.3g} mm apart: small lesions fall between them, and "
            "volumes are coarse."
        )
    if len(lung) < 3:
        yield "Fewer than three slices: no severity, and thirds mean little."
    else:
        for end, name in ((0, "lowest"), (-1, "highest")):
            if lung[end] > CUT * lung.max():
                yield f"The lungs reach the {name} slice: the scan may not hold all of them."
    if totals.tally.edges > 0.01 * lung.sum():
        yield "The lungs reach the picture's border: they may be cut off."
    total = report["volumes_ml"]["lung"]
    if total is not None and len(lung) >= 3 and not LUNGS[0] <= total <= LUNGS[1]:
        yield (
            f"The lung volume, {total:.0f} ml, is not that of an adult's chest: is part of the "
            "lungs missing, or the spacing wrong?"
        )
    healthy = report["mean_hu"]["healthy"]
    if healthy is not None and not AERATED[0] <= healthy <= AERATED[1]:
        yield f"Healthy lung has a mean of {healthy:.0f} HU, which is unusual: are the units right?"
    sides = [side["volumes_ml"]["lung"] for side in report["sides"].values()]
    if total and min(sides) < ONE_SIDE * total:
        yield "One side holds less than a tenth of the lung: sides are not to be trusted."
    if report["confidence"] < UNSURE:
        yield (
            f"The model is unsure (mean probability {report['confidence']:.2f}): the scan may be "
            "unlike those that it was trained on."
        )
