"""Identifiers in DICOM headers never get into results."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_stitchnet.data.scans.privacy import (
    identifiers,
    names_someone,
    without_identifiers,
)
from pyro_stitchnet.prediction.inputs import assign_names, find_inputs

IDENTITY = {"PatientName": "DOE^JOHN", "PatientID": "P-77", "PatientBirthDate": "19500101"}


def test_identifiers_are_collected_from_headers(
    write_slice: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_slice(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), **IDENTITY)
    (tmp_path / "text.txt").write_text("no DICOM")
    found = identifiers([file, tmp_path / "text.txt", tmp_path / "missing"])
    assert set(found) == {"DOE^JOHN", "DOE", "JOHN", "P-77", "19500101"}


@pytest.mark.parametrize(
    "text", ["ct_doe_john", "John Doe", "scan P-77", "p77.ct", "/data/DOE^JOHN/1", "born19500101"]
)
def test_names_are_found_in_any_notation(text: str) -> None:
    known = ("19500101", "DOE^JOHN", "JOHN", "P-77", "DOE")
    assert names_someone(text, known)
    assert not names_someone(without_identifiers(text, known), known)


@pytest.mark.parametrize("text", ["does", "series 1", "ct-177"])
def test_short_names_are_not_found_within_words(text: str) -> None:
    assert not names_someone(text, ("DOE", "77"))


@pytest.mark.parametrize("keep", [False, True])
def test_results_are_named_after_folders_without_identifiers(
    write_series: Callable[..., Path], tmp_path: Path, keep: bool
) -> None:
    stored = np.zeros((5, 4, 4), np.uint16)
    write_series(tmp_path / "in" / "doe_john", stored, **IDENTITY)
    write_series(tmp_path / "in" / "P-77" / "chest", stored, **IDENTITY)
    found, bad = find_inputs([tmp_path / "in"])
    assert not bad
    names = list(assign_names(found, {}, keep_identifiers=keep))
    assert "chest" in names
    assert ("doe_john" in names) == keep
    assert len(names) == 2
