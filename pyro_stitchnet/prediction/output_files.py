"""Files of a results folder: their names, and reports read back.

``stitchnet predict`` writes :data:`PLAN`, :data:`SCANS` and :data:`FAILED` into the results folder,
and a subfolder per scan with :data:`REPORT`, :data:`SLICES`, the maps and, for DICOM input,
:data:`SEG`. The file of :func:`sources_file`, next to the results folder, lists the scans' paths.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_stitchnet.runtime.checksums import read_json, verify

__all__ = [
    "CHECKSUMS", "DISCLAIMER", "FAILED", "MAPS", "PLAN", "REPORT", "SCANS", "SEG", "SLICES",
    "map_file", "read_report", "sources_file", "verify_result",
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

CHECKSUMS = "checksums"
"""Key of a report: the SHA-256 of every other file of the scan's folder, by its name."""

DISCLAIMER = (
    "For research use only. Not a medical device, not validated for diagnosis or treatment; no "
    "finding here replaces a radiologist's."
)
"""Shown with every result."""

AGAIN = "to segment the scan again, remove the folder and run `stitchnet predict` again"


def map_file(name: str) -> str:
    """The file of a map, in its scan's folder."""
    return f"{name}.nii.gz"


def sources_file(out: Path) -> Path:
    """The file that lists the path of each scan.

    Paths may identify patients, so the file is next to the results folder and not in it.
    """
    out = out.resolve()
    return out.with_name(f"{out.name}.sources.json")


def read_report(folder: Path) -> dict[str, Any]:
    """Read the report in a scan's folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = folder / REPORT
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; {AGAIN}")
    try:
        report = read_json(path)
    except ValueError as error:
        raise ValueError(f"{str(error).partition(';')[0]}; {AGAIN}") from error
    if not isinstance(report.get(CHECKSUMS), dict):
        raise ValueError(f"{path}: has no checksums of the scan's files; {AGAIN}")
    return report


def verify_result(folder: Path, report: Mapping[str, Any], *names: str) -> None:
    """Check files of a scan against the checksums in its report.

    Args:
        folder: of the scan.
        report: from :func:`read_report`.
        names: of the files; by default all.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or is not in the report.
    """
    checksums = report[CHECKSUMS]
    for name in names or checksums:
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing; {AGAIN}")
        try:
            verify(path, checksums.get(name))
        except ValueError as error:
            raise ValueError(f"{str(error).partition(';')[0]}; {AGAIN}") from error
