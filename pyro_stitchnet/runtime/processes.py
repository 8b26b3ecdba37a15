"""Worker processes of this machine, any of which may die or hang without ending the run.

The alternatives end the run if a worker dies: ``concurrent.futures`` always, pebble if the worker
is idle. A local dask cluster takes ten seconds to start and has no time limit.
"""

import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import cloudpickle

from pyro_stitchnet.runtime.interrupts import interrupted_once

__all__ = ["UnitLost", "in_processes"]

T = TypeVar("T")
Unit = Callable[[], T]

ATTEMPTS = 2
"""Attempts at a unit whose process dies: the system may have killed it to free memory."""


class UnitLost(ValueError):
    """The process of a unit of work died, or the unit ran out of time."""


def in_processes(
    units: Sequence[Unit[T]],
    workers: int,
    limit: float | None,
    lost: Callable[[Unit[T], str], T] | None,
) -> Iterator[T]:
    """Run units in up to ``workers`` processes, see ``work``."""
    waiting = deque((unit, 1) for unit in units)
    idle: list[_Worker] = []
    busy: list[_Worker] = []
    with interrupted_once() as started:
        try:
            idle = [_Worker(units) for _ in range(min(workers, len(units)))]
            started()
            while waiting or busy:
                while waiting and idle:
                    worker = idle.pop()
                    worker.begin(*waiting.popleft(), limit)
                    busy.append(worker)
                for worker in _ready(busy):
                    busy.remove(worker)
                    result, error, reason = worker.end()
                    if not reason:
                        idle.append(worker)
                    elif waiting or busy or worker.retry:
                        idle.append(_Worker(units))
                    if error is not None:
                        raise error
                    if reason and worker.retry:
                        waiting.append((worker.unit, worker.attempt + 1))
                        continue
                    if reason and lost is None:
                        raise UnitLost(f"{worker.unit}: {reason}")
                    yield lost(worker.unit, reason) if reason and lost else result
        finally:
            for worker in (*idle, *busy):
                worker.stop()


class _Worker:
    """A process that runs one unit after another, as seen from the process that started it."""

    unit: Any
    attempt: int
    limit: float | None
    deadline: float
    running: bool  # whether the process has begun with the unit
    retry = False

    def __init__(self, units: Sequence[Unit[Any]]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(sorted({str(unit.__module__) for unit in units}))
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        main = sys.modules["__main__"]
        try:
            # Else the process would first run a caller's script, which may start this work.
            sys.modules["__main__"] = types.ModuleType("__main__")
            self.process.start()
        finally:
            sys.modules["__main__"] = main
        theirs.close()  # so that reading ends when the process dies

    def begin(self, unit: Unit[Any], attempt: int, limit: float | None) -> None:
        self.unit, self.attempt, self.retry, self.limit = unit, attempt, False, limit
        self.deadline, self.running = math.inf, False
        with suppress(OSError):  # it died while idle, which `end` finds
            self.connection.send_bytes(cloudpickle.dumps(unit))

    def is_starting(self) -> bool:
        """Read what the process sends when it begins with the unit: time counts from there on."""
        if self.running:
            return False
        self.running = True
        try:
            self.connection.recv_bytes()
        except (EOFError, OSError):  # it is dead, which `end` finds
            return False
        if self.limit is not None:
            self.deadline = time.monotonic() + self.limit
        return True

    def end(self) -> tuple[Any, Exception | None, str]:
        """Return the unit's result, its error, and why it is lost."""
        if not self.connection.poll():  # out of time
            self.stop()
            return None, None, f"took longer than {self.limit:g} s; allow more with --time-limit"
        try:
            return (*pickle.loads(self.connection.recv_bytes()), "")
        except (EOFError, OSError):
            self.stop()
            code = self.process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            memory = ", possibly because memory ran out" if -code == signal.SIGKILL else ""
            self.retry = self.attempt < ATTEMPTS
            return None, None, f"its worker process died ({how}{memory})"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _ready(busy: Sequence[_Worker]) -> list[_Worker]:
    """Wait for workers that are done, dead or out of time."""
    ready: list[_Worker] = []
    while not ready:
        left = min(worker.deadline for worker in busy) - time.monotonic()
        connections = [worker.connection for worker in busy]
        answers = wait(connections, None if left == math.inf else max(left, 0))
        now = time.monotonic()
        for worker in busy:
            answered = worker.connection in answers and not worker.is_starting()
            if answered or worker.deadline <= now:
                ready.append(worker)
    return ready


def _serve(connection: Connection) -> None:
    """Run the units that come through a connection, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            unit = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(b"")  # loading the unit may have imported much
        try:
            answer: tuple[Any, Exception | None] = (unit(), None)
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)))
            answer = (None, error)
        connection.send_bytes(_dumps(answer))


def _die_with_parent() -> None:
    """End this process when the one that started it is gone: its result is not needed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _dumps(answer: tuple[Any, Exception | None]) -> bytes:
    """Pickle an answer; an error that cannot be unpickled becomes one that can."""
    try:
        data = cloudpickle.dumps(answer)
        pickle.loads(data)
    except Exception as problem:
        error = answer[1] or problem
        return cloudpickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
    return data
