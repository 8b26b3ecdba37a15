"""What `stitchnet predict` wrote, as the pages show it: a folder a scan, a report in each.

Only the figures named here reach a page. Where a scan came from (`source`) does not: a path may
hold a patient's name.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

__all__ = ["REPORT", "Scan", "find_scans", "open_scan"]

REPORT = "report.json"
"""The file of a scan's folder that is written last: a folder without it is not done."""

DISCLAIMER = "For research use only; not for diagnosis or treatment."


@dataclass(frozen=True)
class Scan:
    """One scan's results.

    Attributes:
        folder: holds the report and the volumes; its name is the scan's.
        report: the content of ``report.json``.
    """

    folder: Path
    report: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of the scan: the folder's name."""
        return self.folder.name

    def figure(self, *keys: str) -> float | None:
        """A number of the report, by its keys from the outside in; None where there is none."""
        value: Any = self.report
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if math.isfinite(value) else None

    @property
    def uncertainty(self) -> float | None:
        """1 - the report's confidence, in [0, 1]."""
        confidence = self.figure("confidence")
        return None if confidence is None else 1 - confidence

    @property
    def warnings(self) -> list[str]:
        """What the report warns of."""
        warnings = self.report.get("warnings")
        return [str(text) for text in warnings] if isinstance(warnings, list) else []

    @property
    def severity_is(self) -> str:
        """How the report's severity score was made."""
        return str(self.report.get("severity_score_is") or "")

    @property
    def disclaimer(self) -> str:
        """What the report may not be used for."""
        return str(self.report.get("disclaimer") or DISCLAIMER)

    @property
    def model(self) -> str:
        """The model's file, or the folder it lies in where its own name says little."""
        path = str(self.report.get("model") or "")
        parts = [p for p in PurePosixPath(PureWindowsPath(path).as_posix()).parts if p != "/"]
        return "/".join(parts[-2:])

    @property
    def created(self) -> str:
        """When the report was made."""
        return str(self.report.get("created") or "")


def open_scan(folder: Path) -> Scan:
    """One scan's results.

    Raises:
        FileNotFoundError: the folder holds no report.
        ValueError: the report cannot be read.
    """
    path = folder / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: not JSON ({error}); remove it and run `stitchnet predict` again"
        ) from error
    if not isinstance(report, dict):
        raise ValueError(f"{path}: not a report; remove it and run `stitchnet predict` again")
    return Scan(folder, report)


def find_scans(folder: Path) -> list[Scan]:
    """The finished scans of a folder that `stitchnet predict` wrote, the most severe first.

    Args:
        folder: holds one folder a scan.

    Returns:
        One or more scans; those without a severity score last, else by name.

    Raises:
        FileNotFoundError: it is no folder, or holds no finished scan.
        ValueError: a report cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give what `stitchnet predict` wrote")
    scans = [open_scan(place) for place in sorted(folder.iterdir()) if (place / REPORT).is_file()]
    if not scans:
        raise FileNotFoundError(
            f"{folder}: holds no finished scan; "
            "`stitchnet predict INPUT --model MODEL --out DIR` makes some"
        )
    return sorted(scans, key=_severity, reverse=True)


def _severity(scan: Scan) -> float:
    score = scan.figure("severity_score")
    return -1.0 if score is None else score
