"""Ctrl-C with workers: they ignore it, and it is not raised while they start or end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pyro_stitchnet.runtime.interrupts import interrupted_once


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Restore the handler: a background job of a shell ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)  # another thread may receive it first


def child_ignores() -> bool:
    """Return whether a child process blocks Ctrl-C."""
    output = subprocess.check_output(
        [
            sys.executable,
            "-c",
            "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))",
        ],
        text=True,
    )
    return output.strip() == "True"


def test_a_press_while_workers_start_is_raised_afterwards() -> None:
    with interrupted_once() as started:
        press()
        with pytest.raises(KeyboardInterrupt):
            started()


def test_a_press_at_work_is_raised_at_once_and_only_once() -> None:
    with interrupted_once() as started:
        started()
        with pytest.raises(KeyboardInterrupt):
            press()
        press()


def test_workers_and_their_replacements_ignore_it() -> None:
    again = threading.Event()
    ignores: list[bool] = []

    def manager() -> None:
        ignores.append(child_ignores())
        again.wait()
        ignores.append(child_ignores())

    with interrupted_once() as started:
        thread = threading.Thread(target=manager)
        thread.start()
        started()
        again.set()
        thread.join()
    assert ignores == [True, True]


def test_afterwards_the_handler_is_restored() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with interrupted_once():
        pass
    assert signal.getsignal(signal.SIGINT) is handler
    assert not child_ignores()
    with pytest.raises(KeyboardInterrupt):
        press()


def test_other_threads_change_nothing() -> None:
    handlers = []

    def work() -> None:
        with interrupted_once() as started:
            started()
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]
