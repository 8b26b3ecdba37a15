"""Units of work on several processes or machines, with dask."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TypeVar

import dask
from dask.distributed import Client, KilledWorker, LocalCluster, as_completed

from pyro_stitchnet.runtime.interrupts import interrupted_once

__all__ = ["work"]

T = TypeVar("T")


def work(
    units: Sequence[Callable[[], T]],
    workers: int,
    scheduler: str | None = None,
    *,
    lost: Callable[[Callable[[], T]], T] | None = None,
) -> Iterator[T]:
    """Run units of work in any order, and yield their results as they complete.

    Ctrl-C ends the workers cleanly. If a worker dies, its current unit, and possibly the one it had
    just completed, runs again on another worker: units must be idempotent.

    Args:
        units: functions without arguments. With more than one worker they and their results must be
            picklable.
        workers: processes on this machine; 1 works in this process.
        scheduler: address of a dask scheduler whose workers do the work instead.
        lost: returns the result of a unit during which several workers died; by default the error
            is raised.

    Raises:
        KilledWorker: several workers died during a unit, and ``lost`` is None.
        Exception: the error of a unit.
    """
    if workers == 1 and scheduler is None:
        for unit in units:
            yield unit()
        return
    with ExitStack() as stack:
        started = stack.enter_context(interrupted_once())
        # One unit per worker: a waiting unit would count as a cause of the worker's death, too.
        stack.enter_context(dask.config.set({"distributed.scheduler.worker-saturation": 1.0}))
        cluster = scheduler or stack.enter_context(
            LocalCluster(
                n_workers=min(workers, max(len(units), 1)),
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=":0",  # any free port: several clusters may run at once
                silence_logs=logging.CRITICAL,  # errors are raised here
            )
        )
        started()
        client = stack.enter_context(Client(cluster))
        futures = client.map(_call, units, pure=False)
        unit_of = dict(zip(futures, units, strict=True))
        for future in as_completed(futures):
            try:
                result = future.result()
            except KilledWorker:
                if lost is None:
                    raise
                result = lost(unit_of[future])
            yield result
            future.release()


def _call(unit: Callable[[], T]) -> T:
    return unit()
