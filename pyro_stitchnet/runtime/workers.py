"""Units of work in this process, in other processes, or on the machines of a dask cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pyro_stitchnet.runtime.processes import UnitLost, in_processes

__all__ = ["UnitLost", "work"]

T = TypeVar("T")


def work(
    units: Sequence[Callable[[], T]],
    workers: int,
    scheduler: str | None = None,
    *,
    limit: float | None = None,
    lost: Callable[[Callable[[], T], str], T] | None = None,
) -> Iterator[T]:
    """Run units of work in any order, and yield their results as they complete.

    Ctrl-C ends the workers cleanly. A unit whose process dies runs once more, because the system
    may have killed it to free memory; on a cluster, as often as dask's ``allowed-failures``. Units
    must therefore be idempotent.

    Args:
        units: functions without arguments. They and their results must be picklable.
        workers: processes on this machine; 0 works in this process, where a crash ends the run and
            no unit runs out of time.
        scheduler: address of a dask scheduler whose workers do the work instead.
        limit: seconds that a unit may take in a process on this machine.
        lost: returns the result of a unit whose workers died or that ran out of time, given the
            unit and the reason; by default :class:`UnitLost` is raised.

    Raises:
        UnitLost: a unit is lost, and ``lost`` is None.
        Exception: the error of a unit.
    """
    if scheduler is not None:
        yield from _on_cluster(units, scheduler, lost)
    elif workers == 0:
        for unit in units:
            yield unit()
    else:
        yield from in_processes(units, workers, limit, lost)


def _on_cluster(
    units: Sequence[Callable[[], T]],
    scheduler: str,
    lost: Callable[[Callable[[], T], str], T] | None,
) -> Iterator[T]:
    from dask.distributed import Client, KilledWorker, as_completed  # a second to import

    with Client(scheduler) as client:
        futures = client.map(_call, units, pure=False)
        unit_of = dict(zip(futures, units, strict=True))
        for future in as_completed(futures):
            try:
                result = future.result()
            except KilledWorker:
                reason = "several workers died at it, possibly out of memory"
                if lost is None:
                    raise UnitLost(f"{unit_of[future]}: {reason}") from None
                result = lost(unit_of[future], reason)
            yield result
            future.release()


def _call(unit: Callable[[], T]) -> T:
    return unit()
