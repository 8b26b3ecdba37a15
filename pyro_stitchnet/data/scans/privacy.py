"""Identifiers of patients in DICOM headers, and texts without them."""

import re
from collections.abc import Iterable
from pathlib import Path

import pydicom

from pyro_stitchnet.data.scans.common import without_warnings

__all__ = ["IDENTIFYING", "identifiers", "names_someone", "without_identifiers"]

IDENTIFYING = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "OtherPatientNames",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "AccessionNumber",
    "ReferringPhysicianName",
    "IssuerOfPatientID",
)
"""Tags whose values must not get into results."""

REMOVED = "[removed]"
SHORT = 4
"""Identifiers of fewer letters are replaced only where they are whole words."""


def identifiers(files: Iterable[Path]) -> tuple[str, ...]:
    """Collect the values of :data:`IDENTIFYING` in DICOM files, and the parts of names.

    Args:
        files: files that are not DICOM, or are unreadable, are skipped.
    """
    values_and_parts: set[str] = set()
    for file in files:
        try:
            with without_warnings():
                header = pydicom.dcmread(
                    file, stop_before_pixels=True, specific_tags=list(IDENTIFYING)
                )
                values = [header.get(tag) for tag in IDENTIFYING]
        except Exception:  # the error is reported when the file's pixels are read
            continue
        for value in values:
            parts = value if isinstance(value, pydicom.multival.MultiValue) else [value]
            for text in map(str, filter(None, parts)):
                values_and_parts |= {text.strip(), *re.split(r"[\^=\s,]+", text)}
    return tuple(sorted(values_and_parts - {""}, key=lambda text: (-len(text), text)))


def names_someone(text: str, known: Iterable[str]) -> bool:
    """Return whether a text holds one of the identifiers, in any case."""
    return any(_pattern(one).search(text) for one in known)


def without_identifiers(text: str, known: Iterable[str]) -> str:
    """Return a text with every identifier replaced by ``[removed]``."""
    for one in known:
        text = _pattern(one).sub(REMOVED, text)
    return text


def _pattern(identifier: str) -> re.Pattern[str]:
    # File names may join the parts of a name by any sign.
    between = r"[^a-z0-9]*"
    parts = [re.escape(part) for part in re.split(r"[^\w]+|_", identifier) if part]
    text = between.join(parts) or re.escape(identifier)
    if len(identifier) < SHORT:
        text = rf"(?<![^\W_]){text}(?![^\W_])"
    return re.compile(text, re.IGNORECASE)
