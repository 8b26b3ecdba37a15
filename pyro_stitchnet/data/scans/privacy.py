"""Identifiers of patients in DICOM headers, and messages without them."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import pydicom

from pyro_stitchnet.data.scans.common import without_warnings

__all__ = ["IDENTIFYING", "identifiers", "without_identifiers", "without_paths"]

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
    "IssuerOfPatientID",
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
    "StationName",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "RequestingPhysician",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "OperatorsName",
)
"""Tags whose values must not get into results."""

REMOVED = "[removed]"
SHORT = 4
"""Identifiers of fewer letters are replaced only where they are whole words."""

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
BETWEEN = r"[^a-z0-9]*"  # file names may join the parts of a name or date by any sign

# Letters without an accent to remove. A vowel may be written with an e: Muller, Mueller.
TRANSLITERATED = {"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d"}

PATH = re.compile(r"[^\s'\"(),;:]*[/\\][^\s'\"(),;:]+")
NO_PATH = re.compile(r"\w{1,3}(?:/\w{1,3})+")  # 1/255, and/or
QUOTED = re.compile(r"(?<!\w)(?:'[^']*'|\"[^\"]*\")(?!\w)")
FILE = re.compile(
    r"[^\s'\"(),;:]+\.(?:nii|gz|dcm|ima|z?raw|mh[ad]|nrrd|nhdr|png|jpe?g|npy|hdr|img)\b", re.I
)


def identifiers(files: Iterable[Path]) -> tuple[str, ...]:
    """Collect the values of :data:`IDENTIFYING` in DICOM files, and the parts of names.

    Args:
        files: of a scan, all of them: a name may be in one header only. Files that are not DICOM,
            or are unreadable, are skipped.
    """
    values_and_parts: set[str] = set()
    for file in files:
        try:
            if not file.is_file():  # opening a pipe would wait forever
                continue
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


def without_identifiers(text: str, known: Iterable[str]) -> str:
    """Return a text with every identifier replaced by ``[removed]``, in any spelling.

    Case, accents, umlauts, signs between the parts, and the notation of dates may differ.
    """
    for one in known:
        plain, places = _plain(text)
        for match in reversed([*_pattern(one).finditer(plain)]):
            text = text[: places[match.start()]] + REMOVED + text[places[match.end()] :]
    return text


def without_paths(text: str, name: str, path: Path, files: Sequence[Path] = ()) -> str:
    """Return the first line of a message without paths, names of files, and quoted values.

    Args:
        text: the message.
        name: replaces the path of the scan.
        path: of the scan.
        files: of the scan; their numbers replace their names.
    """
    text = text.partition("\n")[0]
    real = Path(os.path.realpath(path))  # unlike Path.resolve, also of links in a circle
    shown = {str(path): name, str(real): name, path.name: name}
    for number, file in enumerate(files, 1):
        shown |= {str(file): f"{name}, file {number}", file.name: f"file {number}"}
    for known in sorted(shown, key=len, reverse=True):
        if not known.isalpha():  # the name of a folder may be a word of the message
            text = re.sub(rf"(?<!\w){re.escape(known)}(?!\w)", shown[known], text)
    for folder in (*path.parents, *real.parents):
        if folder.name:
            text = re.sub(rf"{re.escape(str(folder))}(?:/[^:;'\"()]*)?", "[path]", text)
    text = PATH.sub(lambda match: match[0] if NO_PATH.fullmatch(match[0]) else "[path]", text)
    return FILE.sub("[file]", QUOTED.sub(REMOVED, text))


def _plain(text: str) -> tuple[str, list[int]]:
    """Lower case without accents; and the place in ``text`` of each of its letters, and its end."""
    letters: list[str] = []
    places: list[int] = []
    for place, letter in enumerate(text):
        for part in unicodedata.normalize("NFKD", letter.casefold()):
            if not unicodedata.combining(part):
                plain = TRANSLITERATED.get(part, part)
                letters += plain
                places += [place] * len(plain)
    return "".join(letters), [*places, len(text)]


def _pattern(identifier: str) -> re.Pattern[str]:
    if re.fullmatch(r"(?:19|20)\d{6}", identifier):
        return _date(identifier)
    plain, _ = _plain(identifier)
    parts = [re.escape(part) for part in re.findall(r"[^\W_]+", plain)] or [re.escape(plain)]
    if len(identifier) < SHORT:
        return re.compile(rf"(?<![^\W_]){BETWEEN.join(parts)}(?![^\W_])")
    return re.compile(BETWEEN.join(re.sub("([aou])e?", r"\1e?", part) for part in parts))


def _date(digits: str) -> re.Pattern[str]:
    """A date as 19510713, 1951-07-13, 13.7.51, 7/13/1951, 13 Jul 1951, and the like."""
    year = rf"(?:{digits[:2]})?{digits[2:4]}"
    number = int(digits[4:6])
    month = rf"(?:0?{number}|{MONTHS[number - 1]}[a-z]*)" if 1 <= number <= 12 else digits[4:6]
    day = f"0?{int(digits[6:])}"
    orders = ((year, month, day), (day, month, year), (month, day, year), (year, day, month))
    text = "|".join(BETWEEN.join(order) for order in orders)
    return re.compile(rf"(?<!\d)(?:{text})(?!\d)")
