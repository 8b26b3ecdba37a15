"""Files of a results folder: their names, and reports read back.

``stitchnet predict`` writes :data:`PLAN`, :data:`SCANS` and :data:`FAILED` into the results folder,
and a subfolder per scan with :data:`REPORT`, :data:`SLICES`, the maps and, for DICOM input,
:data:`SEG`.
"""

import json
from pathlib import Path
from typing import Any

__all__ = [
    "DISCLAIMER", "FAILED", "MAPS", "PLAN", "REPORT", "SCANS", "SEG", "SLICES", "map_file",
    "read_report",
]  # fmt: skip

PLAN = "predict.json"
"""Model and options of the run. Its presence marks a results folder."""

SCANS = "scans.csv"
"""The values of all reports, a row per scan."""

FAILED = "failed.csv"
"""Scans that could not be segmented, with the reason."""

REPORT = "report.json"
"""The report of a scan. It is written last: a folder without it is not finished."""

SLICES = "slices.csv"
"""A row per axial slice of a scan."""

SEG = "segmentation.dcm"
"""The labels as a DICOM Segmentation."""

MAPS = ("labels", "lesion_probability", "uncertainty")
"""Maps that are written for every scan; "scan" and "healthy" are optional."""

DISCLAIMER = (
    "For research use only. Not a medical device, not validated for diagnosis or treatment; no "
    "finding here replaces a radiologist's."
)
"""Shown with every result."""


def map_file(name: str) -> str:
    """The file of a map, in its scan's folder."""
    return f"{name}.nii.gz"


def read_report(folder: Path) -> dict[str, Any] | None:
    """The report in a scan's folder; None if it is missing or damaged."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None
