"""Units of work in processes that die, hang or fail."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pyro_stitchnet.runtime.workers import UnitLost, work


@dataclass(frozen=True)
class Unit:
    """A unit that kills its process the first ``deaths`` times, and takes ``seconds``."""

    number: int
    folder: Path
    deaths: int = 0
    seconds: float = 0

    def __call__(self) -> int:
        """Return the number."""
        tried = list(self.folder.glob(f"{self.number}-*"))
        if len(tried) < self.deaths:
            (self.folder / f"{self.number}-{len(tried)}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return self.number


class Awkward(Exception):
    """An error that cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def in_this_process() -> int:
    return os.getpid()


def fails() -> int:
    raise ValueError("no such scan")


def fails_awkwardly() -> int:
    raise Awkward("no", "scan")


def test_no_worker_means_this_process() -> None:
    assert list(work([in_this_process], 0)) == [os.getpid()]


def test_one_worker_runs_units_in_order_in_another_process(tmp_path: Path) -> None:
    assert list(work([Unit(n, tmp_path) for n in range(3)], 1)) == [0, 1, 2]
    assert list(work([in_this_process], 1)) != [os.getpid()]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_unit_is_lost_and_one_that_always_kills_is_reported(
    tmp_path: Path, workers: int
) -> None:
    units = [Unit(0, tmp_path), Unit(1, tmp_path, deaths=1), Unit(2, tmp_path, deaths=99)]
    reasons = []

    def lost(unit: object, reason: str) -> int:
        assert unit == units[2]
        reasons.append(reason)
        return -1

    assert sorted(work(units, workers, lost=lost)) == [-1, 0, 1]
    assert len(list(tmp_path.glob("2-*"))) == 2
    assert "SIGKILL" in reasons[0]


def test_without_a_handler_a_lost_unit_raises(tmp_path: Path) -> None:
    with pytest.raises(UnitLost, match="SIGKILL"):
        list(work([Unit(0, tmp_path, deaths=99), Unit(1, tmp_path)], 2))


def test_a_unit_that_takes_too_long_is_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    units = [Unit(0, tmp_path, seconds=600), Unit(1, tmp_path), Unit(2, tmp_path)]
    begun = time.monotonic()
    done = list(work(units, 1, limit=0.5, lost=lambda unit, reason: -1 if "0.5 s" in reason else 9))
    assert sorted(done) == [-1, 1, 2]
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_error_of_a_unit_is_raised(workers: int) -> None:
    with pytest.raises(ValueError, match="no such scan"):
        list(work([fails], workers))


def test_an_error_that_cannot_be_sent_keeps_its_message() -> None:
    with pytest.raises(RuntimeError, match="Awkward: no scan"):
        list(work([fails_awkwardly], 1))


def test_a_worker_that_dies_while_idle_is_replaced(tmp_path: Path) -> None:
    results = work([Unit(n, tmp_path, seconds=n / 5) for n in range(4)], 2)
    assert next(results) == 0
    for child in psutil.Process().children(recursive=True):
        if "forkserver" in " ".join(child.cmdline()) and child.parent() != psutil.Process():
            child.kill()
    assert sorted(results) == [1, 2, 3]


SCRIPT = """
import os, time
from pyro_stitchnet.runtime.workers import work
def unit():
    return os.getpid()
def sleeps():
    time.sleep(600)
results = work([unit, sleeps], 2)
print(next(results), flush=True)
next(results)
"""


def test_workers_need_no_guard_in_a_script_and_die_with_the_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline().strip().isdigit()
        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) >= 3  # the server and two workers
        run.kill()
    alive = psutil.wait_procs(children, timeout=10)[1]
    assert not alive
