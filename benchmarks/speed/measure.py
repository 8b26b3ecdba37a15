"""Rounds of work, timed by the wall clock and in seconds of CPU, and the table of the results."""

import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pyro_stitchnet.runtime.provenance import provenance

Work = Callable[[], object]

Times = dict[str, np.ndarray]
"""By contender: seconds of each round, (rounds, 2), of the wall clock and of CPU."""


@dataclass(kw_only=True)
class Measurement:
    """What every command has."""

    rounds: int = 5  # of all contenders; one more before is not counted
    seed: int = 0

    def run(self) -> None:
        """Measure, and print the table."""
        raise NotImplementedError

    def print_origin(self) -> None:
        for name, value in provenance().items():
            print(f"* {name}: {value}")
        print(f"* seed: {self.seed}; rounds: {self.rounds}\n", flush=True)

    def time(self, works: Mapping[str, Work]) -> Times:
        """Run all contenders in turn, round after round."""
        taken = [[seconds(work) for work in works.values()] for _ in range(self.rounds + 1)]
        return dict(zip(works, np.array(taken[1:]).swapaxes(0, 1), strict=True))


class Table:
    """A Markdown table, printed row by row.

    Args:
        reference: the contender that ratios are to.
        extra: head of a last column, or "".
    """

    def __init__(self, reference: str, extra: str = "") -> None:
        self.reference, self.extra = reference, extra
        heads = ["wall s", "CPU s", f"wall / {reference}", f"CPU / {reference}"]
        heads += [extra] if extra else []
        print("| case | work | " + " | ".join(heads) + " |")
        print("|---|---|" + "---:|" * len(heads))

    def add(self, case: str, times: Times, extras: Mapping[str, str] | None = None) -> None:
        """Print the rows of one case, one for each contender."""
        for name, taken in times.items():
            cells = [case, name, *(f"{median:.3f}" for median in np.median(taken, 0))]
            cells += [spread(ratios) for ratios in (taken / times[self.reference]).T]
            cells += [(extras or {}).get(name, "")] if self.extra else []
            print(f"| {' | '.join(cells)} |", flush=True)


def spread(values: np.ndarray) -> str:
    """Median and quartiles."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def seconds(work: Work) -> tuple[float, float]:
    """Seconds of the wall clock and of CPU."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    synchronise()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Seconds of CPU of this process, all its threads, and its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def synchronise() -> None:
    """Wait for the GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory(make: Callable[..., Work], *arguments: object) -> str:
    """Peak GB of a process of its own that does the work twice; on a GPU, of torch's memory."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return f"{pool.submit(_peak, make, arguments).result():.2f}"


def _peak(make: Callable[..., Work], arguments: tuple[object, ...]) -> float:
    work = make(*arguments)
    work(), work()
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    # Not that of getrusage, which a process inherits from its parent.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9
