"""What DICOM headers say of whose scan it is, and texts without it."""

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
SHORT = 4  # letters; what is shorter is only looked for as a word


def identifiers(files: Iterable[Path]) -> tuple[str, ...]:
    """The values of :data:`IDENTIFYING` in DICOM files, and the parts of names.

    Args:
        files: those that are no DICOM, or unreadable, are passed over.
    """
    found: set[str] = set()
    for file in files:
        try:
            with without_warnings():
                head = pydicom.dcmread(
                    file, stop_before_pixels=True, specific_tags=list(IDENTIFYING)
                )
                said = [head.get(tag) for tag in IDENTIFYING]
        except Exception:  # whatever a strange file raises: reading its pixels will say why
            continue
        for value in said:
            values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
            for text in map(str, filter(None, values)):
                found |= {text.strip(), *re.split(r"[\^=\s,]+", text)}
    return tuple(sorted(found - {""}, key=lambda text: (-len(text), text)))


def names_someone(text: str, known: Iterable[str]) -> bool:
    """Whether a text holds one of the identifiers, in capitals or not."""
    return any(_pattern(one).search(text) for one in known)


def without_identifiers(text: str, known: Iterable[str]) -> str:
    """A text in which every identifier is replaced."""
    for one in known:
        text = _pattern(one).sub(REMOVED, text)
    return text


def _pattern(identifier: str) -> re.Pattern[str]:
    # In names of files a part of a name may be joined to others by any sign.
    between = r"[^a-z0-9]*"
    parts = [re.escape(part) for part in re.split(r"[^\w]+|_", identifier) if part]
    text = between.join(parts) or re.escape(identifier)
    if len(identifier) < SHORT:
        text = rf"(?<![^\W_]){text}(?![^\W_])"
    return re.compile(text, re.IGNORECASE)
