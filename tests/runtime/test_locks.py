"""One run at a time in a folder."""

import shutil
import subprocess
import sys
from collections.abc import Callable
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


def test_other_folders_are_free(tmp_path: Path) -> None:
    with only_run(tmp_path / "a"), only_run(tmp_path / "b"):
        pass


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def _remove_and_write(folder: Path) -> None:
    shutil.rmtree(folder)
    (folder / "file").write_text("")  # an error that does not tell the cause


def _remove_and_run_again(folder: Path) -> None:
    shutil.rmtree(folder)
    with only_run(folder):
        pass


@pytest.mark.parametrize("happens", [_remove, _remove_and_write, _remove_and_run_again])
def test_a_folder_that_is_removed_during_the_run_is_named(
    happens: Callable[[Path], None], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="out: was removed while"), only_run(out):
        happens(out)


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
