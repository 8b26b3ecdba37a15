"""Results of ``stitchnet predict``, as the pages show them.

Only the values named here reach a page. The path of a scan (``source``) does not, because it may
contain a patient's name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pyro_stitchnet.prediction.output_files import DISCLAIMER, REPORT, read_report

__all__ = ["ScanResult", "find_results", "open_result"]


@dataclass(frozen=True)
class ScanResult:
    """The results of one scan.

    Attributes:
        folder: has the report and the volumes; its name is the scan's name.
        report: the content of ``report.json``.
    """

    folder: Path
    report: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The scan's name."""
        return self.folder.name

    def value(self, *keys: str) -> float | None:
        """A number of the report, by its nested keys; None if it is missing or not finite."""
        value: Any = self.report
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if math.isfinite(value) else None

    @property
    def uncertainty(self) -> float | None:
        """1 - the report's confidence, in [0, 1]."""
        confidence = self.value("confidence")
        return None if confidence is None else 1 - confidence

    @property
    def warnings(self) -> list[str]:
        """The report's warnings."""
        warnings = self.report.get("warnings")
        return [str(text) for text in warnings] if isinstance(warnings, list) else []

    @property
    def severity_definition(self) -> str:
        """The definition of the report's severity score."""
        return str(self.report.get("severity_score_is") or "")

    @property
    def disclaimer(self) -> str:
        """The limits of the report's use."""
        return str(self.report.get("disclaimer") or DISCLAIMER)

    @property
    def model(self) -> str:
        """The last two parts of the model's path."""
        path = str(self.report.get("model") or "")
        parts = [p for p in PurePosixPath(PureWindowsPath(path).as_posix()).parts if p != "/"]
        return "/".join(parts[-2:])

    @property
    def created(self) -> str:
        """Date and time of the report."""
        return str(self.report.get("created") or "")


def open_result(folder: Path) -> ScanResult:
    """Read the results of one scan.

    Raises:
        FileNotFoundError: the folder has no report.
        ValueError: the report is damaged.
    """
    report = read_report(folder)
    if report is None:
        path = folder / REPORT
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; run `stitchnet predict` again")
        raise ValueError(f"{path}: damaged; remove the folder and run `stitchnet predict` again")
    return ScanResult(folder, report)


def find_results(folder: Path) -> list[ScanResult]:
    """The finished scans of a results folder, the most severe first.

    Args:
        folder: results of ``stitchnet predict``.

    Returns:
        One or more scans. Scans of equal severity are in order of their names; those without a
        severity score are last.

    Raises:
        FileNotFoundError: the folder does not exist, or has no finished scan.
        ValueError: a report is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the --out of `stitchnet predict`")
    finished = (place for place in sorted(folder.iterdir()) if (place / REPORT).is_file())
    results = [open_result(place) for place in finished]
    if not results:
        raise FileNotFoundError(
            f"{folder}: no finished scan; create some with `stitchnet predict INPUT --model MODEL "
            "--out DIR`"
        )
    return sorted(results, key=_severity, reverse=True)


def _severity(result: ScanResult) -> float:
    score = result.value("severity_score")
    return -1.0 if score is None else score
