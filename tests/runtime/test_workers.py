"""Units of work on processes that die."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import dask
import pytest
from dask.distributed import KilledWorker

from pyro_stitchnet.runtime.workers import work


@dataclass(frozen=True)
class Unit:
    """A unit that kills its process the first ``deaths`` times."""

    number: int
    folder: Path
    deaths: int = 0

    def __call__(self) -> int:
        """Return the number."""
        tried = list(self.folder.glob(f"{self.number}-*"))
        if len(tried) < self.deaths:
            (self.folder / f"{self.number}-{len(tried)}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.number


def test_one_worker_runs_units_in_order(tmp_path: Path) -> None:
    assert list(work([Unit(n, tmp_path) for n in range(3)], 1)) == [0, 1, 2]


def test_no_unit_is_lost_and_one_that_always_kills_is_reported(tmp_path: Path) -> None:
    units = [Unit(0, tmp_path), Unit(1, tmp_path, deaths=1), Unit(2, tmp_path, deaths=99)]
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        done = list(work(units, 2, lost=lambda unit: -1))
        assert len(list(tmp_path.glob("2-*"))) == 2
    assert sorted(done) == [-1, 0, 1]


def test_without_a_handler_a_lost_unit_raises(tmp_path: Path) -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        pytest.raises(KilledWorker),
    ):
        list(work([Unit(0, tmp_path, deaths=99), Unit(1, tmp_path)], 2))
