"""Identifiers in DICOM headers, and messages without them."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_stitchnet.data.scans.privacy import identifiers, without_identifiers, without_paths

IDENTITY = {"PatientName": "DOE^JOHN", "PatientID": "P-77", "PatientBirthDate": "19500101"}


def test_identifiers_are_collected_from_headers(
    write_slice: Callable[..., Path], tmp_path: Path
) -> None:
    stored = np.zeros((4, 4), np.uint16)
    file = write_slice(tmp_path / "a.dcm", stored, **IDENTITY)
    other = write_slice(tmp_path / "b.dcm", stored, PatientID="P-77", OperatorsName="SMITH")
    (tmp_path / "text.txt").write_text("no DICOM")
    os.mkfifo(tmp_path / "pipe")  # nothing is written to it
    others = (tmp_path / name for name in ("text.txt", "missing", "pipe"))
    found = identifiers([file, other, *others])
    assert set(found) == {"DOE^JOHN", "DOE", "JOHN", "P-77", "19500101", "SMITH"}


@pytest.mark.parametrize(
    ("identifier", "spelled"),
    [
        ("DOE^JOHN", ["doe_john", "Doe, John", "/data/DOE^JOHN/1"]),
        ("P-77", ["scan P-77", "p77.ct", "p_77"]),
        ("7731905", ["mrn-7731905", "MRN7731905x"]),
        (
            "19510713",
            ["19510713", "1951-07-13", "13.07.1951", "13071951", "7/13/51", "13.7.51",
             "born19510713", "13 Jul 1951", "July 13, 1951", "510713", "1951/7/13", "13-JUL-51"],
        ),
        ("M\u00fcller", ["MUELLER", "Muller", "mu\u0308ller", "M\u00dcLLER"]),
        ("Mueller", ["M\u00fcller", "Muller", "mueller"]),
        ("Muller", ["M\u00fcller", "Mueller"]),
        ("Wei\u00df", ["WEISS", "weiss", "Wei\u00df"]),
        ("S\u00f8ren", ["Soren", "Soeren", "S\u00f8ren"]),
        ("Zo\u00eb", ["zoe", "ZO\u00cb"]),
    ],
)  # fmt: skip
def test_identifiers_are_found_in_any_spelling(identifier: str, spelled: list[str]) -> None:
    for text in spelled:
        for form in ("NFC", "NFD"):
            written = unicodedata.normalize(form, f"a {text} b")
            cleaned = without_identifiers(written, [identifier])
            assert "[removed]" in cleaned, text
            assert cleaned.startswith("a ")
            assert cleaned.endswith(" b")
            assert not identifier.isdigit() or not any(letter.isdigit() for letter in cleaned)


@pytest.mark.parametrize("text", ["does", "series 1", "ct-177", "1951-08-13", "119510713"])
def test_other_words_and_numbers_stay(text: str) -> None:
    assert without_identifiers(text, ("DOE", "77", "19510713")) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/in/DOE/ct/a.dcm: unreadable (no end)", "scan-1, file 1: unreadable (no end)"),
        ("/in/DOE/ct: slices 2/3 are missing", "scan-1: slices 2/3 are missing"),
        ("/in/DOE/other 7.raw: missing", "[path]: missing"),
        ("names '../DOE.raw', which is outside", "names [removed], which is outside"),
        ("a.dcm and DOE.nii.gz differ", "file 1 and [file] differ"),
        ("/tmp/out/.x/DOE/slices.raw: full", "[path]: full"),
        ("two series:\n  DOE\n  SMITH", "two series:"),
        ("the file's slices aren't ordered", "the file's slices aren't ordered"),
    ],
)  # fmt: skip
def test_messages_name_no_path(text: str, expected: str) -> None:
    path = Path("/in/DOE/ct")
    assert without_paths(text, "scan-1", path, [path / "a.dcm"]) == expected
