"""The number of threads follows the cores that are free."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pyro_stitchnet.runtime import threads
from pyro_stitchnet.runtime.threads import FreeCores, use_free_cores


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Measured(FreeCores):
    def __init__(self, free: float) -> None:
        self.free = free

    def count(self) -> float:
        return self.free


@pytest.mark.parametrize(("free", "expected"), [(0.0, 1), (1.4, 1), (2.6, 3), (50.0, 4)])
def test_threads_are_lowered_to_the_free_cores(free: float, expected: int) -> None:
    torch.set_num_threads(4)
    use_free_cores(Measured(free))
    assert torch.get_num_threads() == expected


def test_a_number_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    use_free_cores(Measured(1))
    assert torch.get_num_threads() == 4


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell")
def test_a_core_that_another_process_uses_is_not_free() -> None:
    """And one that this process uses is free."""
    busy = subprocess.Popen(
        [sys.executable, "-c", "while True: pass"],
        stdout=subprocess.DEVNULL,
    )
    try:
        time.sleep(0.2)
        measured = FreeCores()
        before = len(os.sched_getaffinity(0))
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            pass
        assert measured.count() < before - 0.3  # other tests may be busy, too
    finally:
        busy.kill()
        busy.wait()


@pytest.mark.parametrize(
    ("own", "quota", "cores"),
    [("", "150000 100000", 1.5), ("a/b", "max 100000", float("inf")), ("a/b", "nonsense", None)],
)
def test_the_quota_of_a_container_counts(
    own: str, quota: str, cores: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / own
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(quota)
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    assert min(threads._quotas([folder]), default=None) == (
        None if cores == float("inf") else cores
    )
