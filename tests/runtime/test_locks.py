"""One run at a time in a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from pyro_stitchnet.runtime.locks import LOCK, check_free, only_run

HOLD = """
import sys, time
from pyro_stitchnet.runtime.locks import only_run
with only_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_and_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        message = f"out: another run .*process {other.pid} on"
        with pytest.raises(BlockingIOError, match=message), only_run(out):
            pass
        other.kill()
    with only_run(out):
        pass


def test_runs_one_after_the_other_leave_an_empty_file(tmp_path: Path) -> None:
    for _ in range(2):
        with only_run(tmp_path):
            assert "process" in (tmp_path / LOCK).read_text()
        assert (tmp_path / LOCK).read_bytes() == b""


def test_other_folders_are_free_and_the_folder_may_vanish(tmp_path: Path) -> None:
    with only_run(tmp_path / "a"), only_run(tmp_path / "b"):
        (tmp_path / "a" / LOCK).unlink()
        (tmp_path / "a").rmdir()
    assert not (tmp_path / "a").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(FileExistsError, match="out"), only_run(tmp_path / "out"):
        pass


def test_a_look_at_a_folder_creates_nothing(tmp_path: Path) -> None:
    check_free(tmp_path / "new")
    check_free(tmp_path)
    assert not any(tmp_path.iterdir())
    with only_run(tmp_path), pytest.raises(BlockingIOError, match="another run is writing"):
        check_free(tmp_path)
    check_free(tmp_path)
