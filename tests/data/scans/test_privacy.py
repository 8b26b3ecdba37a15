"""No result names whom a DICOM header names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_stitchnet.data.scans.privacy import (
    identifiers,
    names_someone,
    without_identifiers,
)
from pyro_stitchnet.prediction.inputs import find_inputs, named

WHOSE = {"PatientName": "DOE^JOHN", "PatientID": "P-77", "PatientBirthDate": "19500101"}


def test_headers_say_whose_they_are(write_slice: Callable[..., Path], tmp_path: Path) -> None:
    file = write_slice(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), **WHOSE)
    (tmp_path / "text.txt").write_text("no DICOM")
    found = identifiers([file, tmp_path / "text.txt", tmp_path / "missing"])
    assert set(found) == {"DOE^JOHN", "DOE", "JOHN", "P-77", "19500101"}


@pytest.mark.parametrize(
    "text", ["ct_doe_john", "John Doe", "scan P-77", "p77.ct", "/data/DOE^JOHN/1", "born19500101"]
)
def test_names_are_found_however_they_are_written(text: str) -> None:
    known = ("19500101", "DOE^JOHN", "JOHN", "P-77", "DOE")
    assert names_someone(text, known)
    assert not names_someone(without_identifiers(text, known), known)


@pytest.mark.parametrize("text", ["does", "series 1", "ct-177"])
def test_short_names_are_not_found_within_words(text: str) -> None:
    assert not names_someone(text, ("DOE", "77"))


@pytest.mark.parametrize("keep", [False, True])
def test_results_are_called_by_folders_that_name_nobody(
    write_series: Callable[..., Path], tmp_path: Path, keep: bool
) -> None:
    stored = np.zeros((5, 4, 4), np.uint16)
    write_series(tmp_path / "in" / "doe_john", stored, **WHOSE)
    write_series(tmp_path / "in" / "P-77" / "chest", stored, **WHOSE)
    found, bad = find_inputs([tmp_path / "in"])
    assert not bad
    names = list(named(found, {}, keep=keep))
    assert "chest" in names
    assert ("doe_john" in names) == keep
    assert len(names) == 2
