"""Checksums of files that are read back."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest

from pyro_stitchnet.runtime.checksums import read_json, sha256, verify, write_json

CONTENT = {
    "size": 128,
    "names": ["a", "Müller", "x\n"],
    "share": 0.1,
    "none": None,
    "deep": {"a": []},
}


def test_what_is_written_is_read_back_and_is_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", CONTENT)
    assert read_json(tmp_path / "a.json") == CONTENT
    assert json.loads((tmp_path / "a.json").read_text())["names"] == CONTENT["names"]


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, CONTENT)
    good = path.read_bytes()
    draw = random.Random(0)
    for _ in range(300):
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        path.write_bytes(bad)
        with suppress(ValueError):
            assert read_json(path) == CONTENT  # spaces may change


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", '{"a": 1}', '{"sha256": 3}', "[" * 10**5, '{"a": NaN}', "\xff"]
)
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.json: damaged"):
        read_json(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_infinite_numbers_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    noted = sha256(path)
    verify(path, noted)
    path.write_text("a,b\n1,3\n")
    with pytest.raises(ValueError, match=r"table\.csv: damaged or edited"):
        verify(path, noted)
    with pytest.raises(ValueError, match=r"table\.csv: damaged or edited"):
        verify(path, None)
