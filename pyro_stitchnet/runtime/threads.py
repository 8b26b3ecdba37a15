"""The number of threads: as many as there are free cores."""

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["FreeCores", "chosen_by_user", "usable_cores", "use_free_cores"]

CGROUPS = Path("/sys/fs/cgroup")
LEAST_SECONDS = 0.2  # of a measurement: the system counts hundredths of a second


def chosen_by_user() -> bool:
    """Whether the environment sets the number of threads."""
    return any(name in os.environ for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))


def usable_cores() -> int:
    """Return the number of cores that this process may use, and at least 1.

    Only cores count on which it may run, and no more than the quota of its container.
    """
    return max(1, int(min(len(_cores()), _quota())))


class FreeCores:
    """Measures how many cores other processes leave free, from its creation on.

    Only cores count on which this process may run, and no more than the quota of its container. A
    core that a process of low priority uses is free.
    """

    def __init__(self) -> None:
        """Begin to measure; without /proc/stat all cores count as free."""
        self.cores = _cores()
        self._begun = self._now()

    def count(self) -> float:
        """Return the number of free cores, as a mean since the beginning."""
        limit = min(len(self.cores), _quota())
        before, now = self._begun, self._now()
        if before is None or now is None:
            return limit
        if now[0] - before[0] < LEAST_SECONDS:
            time.sleep(LEAST_SECONDS)
            return self.count()
        seconds, busy, own = (b - a for a, b in zip(before, now, strict=True))
        return min(limit, len(self.cores) - max(busy - own, 0) / seconds)

    def _now(self) -> tuple[float, float, float] | None:
        """The time, the seconds that the cores were busy, and those for this process."""
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        times = [line.split() for line in lines if re.match(r"cpu\d", line)]
        # user, nice, system, idle, iowait, irq, softirq, steal
        ticks = sum(
            int(t[1]) + sum(map(int, t[3:4] + t[6:9])) for t in times if int(t[0][3:]) in self.cores
        )
        used = os.times()
        own = used.user + used.system + used.children_user + used.children_system
        return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own


def use_free_cores(measured: FreeCores) -> None:
    """Lower torch's number of threads to that of the free cores, unless the user has chosen it.

    Threads that outnumber the cores wait for each other at every operation.
    """
    import torch  # late: the command line measures while torch is imported

    if not chosen_by_user():
        free = max(round(measured.count()), 1)
        if free < torch.get_num_threads():
            torch.set_num_threads(free)


def _cores() -> set[int]:
    """The cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _quota() -> float:
    """The number of cores' time that the container of this process may use."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::/")[2].strip()
    except (OSError, ValueError):
        return float("inf")
    folders = [CGROUPS / own, *(CGROUPS / own).parents]
    within = [folder for folder in folders if folder.is_relative_to(CGROUPS)]
    return min(_quotas(within), default=float("inf"))


def _quotas(folders: Iterable[Path]) -> Iterable[float]:
    for folder in folders:
        try:
            quota, _, period = (folder / "cpu.max").read_text(encoding="ascii").partition(" ")
            if quota != "max":
                yield int(quota) / int(period)
        except (OSError, ValueError):
            continue
