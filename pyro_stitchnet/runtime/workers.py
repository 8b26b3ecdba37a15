"""Work spread over processes or machines by dask."""

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
    """Do units of work, in any order; yields what each returns as it is done.

    Ctrl-C ends the workers in order. What a worker that died was at is given to another one, and so
    may be what it had just done: units must not mind being done twice.

    Args:
        units: what to do. With more than one worker they and what they return must be picklable.
        workers: processes on this machine; 1 works in this process.
        scheduler: address of a dask scheduler whose workers do the work instead.
        lost: what to yield for a unit at which one worker after another died; by default that
            raises.

    Raises:
        KilledWorker: see ``lost``.
        Exception: what a unit raised.
    """
    if workers == 1 and scheduler is None:
        for unit in units:
            yield unit()
        return
    with ExitStack() as stack:
        started = stack.enter_context(interrupted_once())
        # A worker has no unit but the one it is at: another would be blamed for its death, too.
        stack.enter_context(dask.config.set({"distributed.scheduler.worker-saturation": 1.0}))
        cluster = scheduler or stack.enter_context(
            LocalCluster(
                n_workers=min(workers, max(len(units), 1)),
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address=":0",  # any free port: several may run side by side
                silence_logs=logging.CRITICAL,  # what goes wrong is raised here
            )
        )
        started()
        client = stack.enter_context(Client(cluster))
        futures = client.map(_call, units, pure=False)
        at = dict(zip(futures, units, strict=True))
        for future in as_completed(futures):
            try:
                result = future.result()
            except KilledWorker:
                if lost is None:
                    raise
                result = lost(at[future])
            yield result
            future.release()


def _call(unit: Callable[[], T]) -> T:
    return unit()
