"""Results of ``stitchnet predict``, as the pages show them.

Only the values named here reach a page. The path of a scan (``source``) does not, because it may
contain a patient's name.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pyro_stitchnet.prediction.output_files import (
    CHECKSUMS,
    DISCLAIMER,
    REPORT,
    map_file,
    read_report,
    verify_result,
)
from pyro_stitchnet.runtime.text import escaped

__all__ = ["ScanResult", "find_results", "open_result", "problem_of"]

LARGEST = 1e300  # numbers that a page shows


@dataclass(frozen=True)
class ScanResult:
    """The results of one scan.

    Attributes:
        folder: has the report and the volumes; its name is the scan's name.
        report: the content of ``report.json``.
        problem: why the report cannot be read, on one line and without the folder's path.
    """

    folder: Path
    report: Mapping[str, Any]
    problem: str = ""
    _verified: set[str] = field(default_factory=set, repr=False)

    @property
    def name(self) -> str:
        """The scan's name."""
        return escaped(self.folder.name)

    def map(self, name: str) -> Path:
        """The file of a map, once checked against the report's checksum.

        Raises:
            FileNotFoundError: the file is missing.
            ValueError: the file is damaged.
        """
        file = map_file(name)
        if file not in self._verified:
            verify_result(self.folder, self.report, file)
            self._verified.add(file)
        return self.folder / file

    def has_map(self, name: str) -> bool:
        """Whether the scan has a map, by its report."""
        return map_file(name) in self.report[CHECKSUMS]

    def value(self, *keys: str) -> float | None:
        """A number of the report, by its nested keys; None if it is missing or not finite."""
        value: Any = self.report
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        # A whole number of JSON may be too large for a float.
        return float(value) if abs(value) < LARGEST else None

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
    return ScanResult(folder, read_report(folder))


def find_results(folder: Path) -> list[ScanResult]:
    """The finished scans of a results folder, the most severe first.

    Args:
        folder: results of ``stitchnet predict``.

    Returns:
        One or more scans. Scans of equal severity are in order of their names; those without a
        severity score are last. A scan with a damaged report has a ``problem`` and no values.

    Raises:
        FileNotFoundError: the folder does not exist, or has no finished scan.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; give the --out of `stitchnet predict`")
    finished = [place for place in sorted(folder.iterdir()) if _is_finished(place)]
    if not finished:
        raise FileNotFoundError(
            f"{folder}: no finished scan; create some with `stitchnet predict INPUT --model MODEL "
            "--out DIR`"
        )
    return sorted(map(_result, finished), key=_severity, reverse=True)


def _is_finished(folder: Path) -> bool:
    try:
        return (folder / REPORT).exists()
    except OSError:  # for example no permission: the scan is listed with that reason
        return True


def _result(folder: Path) -> ScanResult:
    try:
        return open_result(folder)
    except (OSError, ValueError) as error:
        return ScanResult(folder, {CHECKSUMS: {}}, problem_of(error, folder))


def problem_of(error: Exception, folder: Path) -> str:
    """What is wrong with a scan, without the path of the results."""
    text = str(error).replace(f"{folder.parent}{os.sep}", "")
    return escaped(text)


def _severity(result: ScanResult) -> float:
    score = result.value("severity_score")
    return -1.0 if score is None else score
