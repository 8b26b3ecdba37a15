"""What a host leaves: variables, streams that nobody reads, and an encoding without umlauts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyro_stitchnet.runtime import host

STITCHNET = [sys.executable, "-m", "pyro_stitchnet"]


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which $S is the command."""
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False,
        env={**os.environ, "S": " ".join(STITCHNET), **variables},
    )  # fmt: skip


@pytest.mark.parametrize("arguments", ["--help", "prepare --help"])
def test_a_pipe_that_nobody_reads_is_no_error(arguments: str) -> None:
    done = shell(f"$S {arguments} | true; echo ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.stdout == "141\n"


def test_streams_may_be_closed() -> None:
    done = shell("$S --help >&- 2>&-; echo $?")
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_below_the_output_is_one_line() -> None:
    done = shell("$S --help >/dev/full; echo $?")
    assert done.stdout == "1\n"
    assert done.stderr.startswith("error: standard output:")
    assert done.stderr.count("\n") == 1


def test_a_working_folder_that_was_removed_is_one_line(tmp_path: Path) -> None:
    done = shell(f"mkdir {tmp_path}/a; cd {tmp_path}/a; rmdir {tmp_path}/a; $S inspect x; echo $?")
    assert done.stdout == "1\n"
    assert "the working folder was removed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_name_that_the_locale_cannot_show_is_escaped() -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"}
    done = shell("$S sample 'M\u00fcller.pt' --out x; echo $?", **ascii_only)
    assert done.stdout == "1\n"
    assert "ller.pt: no such checkpoint" in done.stderr


def test_bytes_of_a_name_that_are_no_text_are_escaped() -> None:
    done = shell(r"$S prepare $'M\xfcller\n' --out x; echo $?", PYTHONUTF8="1")
    assert done.stdout == "1\n"
    assert r"M\udcfcller : no such folder" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "after"),
    [
        ("MPLBACKEND", "module://matplotlib_inline.backend_inline", "agg"),
        ("COLUMNS", "0", None),
        ("COLUMNS", "wide", None),
        ("COLUMNS", "120", "120"),
        ("OMP_NUM_THREADS", "many", None),
        ("OMP_NUM_THREADS", "0", None),
        ("OMP_NUM_THREADS", "4", "4"),
        ("OMP_NUM_THREADS", "4,2", "4,2"),
        ("OMP_WAIT_POLICY", "active", "active"),
        ("OMP_WAIT_POLICY", None, "passive"),
    ],
)
def test_variables(
    name: str,
    value: str | None,
    after: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for other in ("MPLBACKEND", "COLUMNS", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(other, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    host.settle()
    assert os.environ.get(name) == after
    ignored = name == "OMP_NUM_THREADS" and after is None
    assert ("not a number; ignored" in capsys.readouterr().err) == ignored
