"""Stopped, killed or out of room, a preparation goes on to the same bytes; finished, it is kept."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from pyro_stitchnet.data.datasets import prepare_scan as _scan
from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.preprocessing.steps import Preprocessing


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_stopped_preparation_goes_on(
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = volume_folder(tmp_path / "in", 3)
    prepared(folder, out=tmp_path / "whole")
    calls = []

    def stop_at_second(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    original = _scan.prepare_scan
    monkeypatch.setattr(_scan, "prepare_scan", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        prepared(folder, out=tmp_path / "out")
    with pytest.raises(ValueError, match="the start of a dataset whose preprocessing differ"):
        prepared(folder, out=tmp_path / "out", preprocessing=Preprocessing(size=64, lungs="none"))
    prepared(folder, out=tmp_path / "out")
    assert len(calls) == 4, "the first scan is not prepared again"
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_finished_dataset_is_not_overwritten(
    picture_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = picture_folder(tmp_path / "in", [0, 1])
    prepared(folder, out=tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(FileExistsError, match="choose another --out"):
        prepared(folder, out=tmp_path / "out")
    assert content(tmp_path / "out") == before


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to write larger files, as it refuses any on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stage", ["plan", "shard", "end"])
def test_where_writing_fails_nothing_half_written_stays_and_it_goes_on(
    picture_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    stage: str,
) -> None:
    names = tuple(f"{i:02}.png" for i in range(90))  # two shards
    folder = picture_folder(tmp_path / "in", [0, 1], names=names)
    whole = content(prepared(folder, out=tmp_path / "whole").folder)
    out = tmp_path / "out"
    largest = max(len(data) for name, data in whole.items() if name.startswith("shards"))
    room = {"plan": 10, "shard": largest - 1, "end": len(whole["manifest.csv"]) - 1}
    assert room["shard"] < room["end"], "no shard is to be refused at the end"
    with files_of_at_most(room[stage]), pytest.raises(OSError, match=str(out)) as caught:
        prepared(folder, out=out)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(FileNotFoundError, match="prepare"):
        Dataset(out)
    left = {name: data for name, data in content(out).items() if name != "plan.json"}
    assert left.items() <= whole.items()
    assert content(prepared(folder, out=out).folder) == whole


SCANS = 150


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    """`stitchnet prepare` with two workers, in a group of processes of its own."""
    stitchnet = Path(sys.executable).with_name("stitchnet")
    options = ["--size", "32", "--lungs", "none", "--workers", "2", "--no-progress"]
    return subprocess.Popen(
        [stitchnet, "prepare", folder, "--out", out, *options],
        start_new_session=True,
        stderr=subprocess.PIPE,
    )


def shards(out: Path) -> int:
    return len(list((out / "shards").glob("[0-9]*")))


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The worker processes below a running command."""
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # it may end while it is asked
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["a worker", "everything"])
def test_killed_halfway_the_bytes_are_the_same(
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    victim: str,
) -> None:
    """Two workers, kill -9; then the same command again where all were killed."""
    folder = volume_folder(tmp_path / "in", SCANS)
    prepared(folder, out=tmp_path / "whole")
    out = tmp_path / "out"
    process = start(folder, out)
    while len(workers := workers_of(process)) < 2 or shards(out) < 3:
        assert process.poll() is None, "it ended before it was killed"
    if victim == "a worker":
        workers[0].kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    assert shards(out) < SCANS, "killed too late to test anything"
    process.communicate(timeout=300)
    if victim == "everything":
        with pytest.raises(FileNotFoundError, match="interrupted"):
            Dataset(out)
        process = start(folder, out)
        process.communicate(timeout=300)
    assert process.returncode == 0
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["as workers start", "at work"])
def test_after_ctrl_c_one_line_says_how_to_go_on_and_it_does(
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    moment: str,
) -> None:
    """Pressed twice, since the workers take a while to end."""
    folder = volume_folder(tmp_path / "in", SCANS // 3)
    prepared(folder, out=tmp_path / "whole")
    out = tmp_path / "out"
    process = start(folder, out)
    while len(workers_of(process)) < 2 or (moment == "at work" and shards(out) < 3):
        assert process.poll() is None, "it ended before it was stopped"
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert said.decode() == "stopped; `prepare` goes on when run again\n"
    assert process.returncode == 130
    assert shards(out) < SCANS // 3, "stopped too late to test anything"
    process = start(folder, out)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert content(out) == content(tmp_path / "whole")
