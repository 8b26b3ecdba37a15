"""Atomic writing, and names in errors."""

import errno
import os
import stat
from pathlib import Path

import pytest

from pyro_stitchnet.runtime.files import naming, remove_unfinished, write_atomically


def test_text_is_written_as_utf8_and_bytes_unchanged(tmp_path: Path) -> None:
    write_atomically(tmp_path / "text", "α\r\nβ\n")
    write_atomically(str(tmp_path / "bytes"), b"\x00\r\n\xff")
    assert (tmp_path / "text").read_bytes() == "α\r\nβ\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\r\n\xff"


def test_a_file_is_replaced_without_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("a longer old text")
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_keeps_the_old_file_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_atomically(tmp_path / "file", "")
    plain, file = ((tmp_path / name).stat().st_mode for name in ("plain", "file"))
    assert stat.S_IMODE(file) == stat.S_IMODE(plain)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; create it"):
        write_atomically(tmp_path / "nowhere" / "file", "")


def test_a_file_is_added_to_errors_without_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path)) as caught, naming(tmp_path):
        raise OSError(errno.ENOSPC, "full")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="scan"), naming(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone", "scan")
    with pytest.raises(OSError, match=r"^in words$"), naming(tmp_path):
        raise OSError("in words")


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".model.pt.1a2b.tmp").touch()
    (tmp_path / ".scan.3c4d.tmp").mkdir()
    (tmp_path / ".scan.3c4d.tmp" / "part").touch()
    kept = [tmp_path / name for name in (".lock", "log.tmp", "model.pt")]
    for path in kept:
        path.touch()
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
