"""Ctrl-C among workers: they must not hear it, and it must not come while they start or end."""

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
def not_ignored_from_the_start() -> Iterator[None]:
    """A shell's background job begins with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)  # another thread may take it and pass it on


def deaf_child() -> bool:
    """Whether a process started here leaves Ctrl-C alone."""
    said = subprocess.check_output(
        [
            sys.executable,
            "-c",
            "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))",
        ],
        text=True,
    )
    return said.strip() == "True"


def test_pressed_while_workers_start_it_comes_when_they_have() -> None:
    with interrupted_once() as started:
        press()
        with pytest.raises(KeyboardInterrupt):
            started()


def test_pressed_at_work_it_comes_at_once_and_only_once() -> None:
    with interrupted_once() as started:
        started()
        with pytest.raises(KeyboardInterrupt):
            press()
        press()


def test_workers_do_not_hear_it_nor_those_started_in_their_place() -> None:
    again = threading.Event()
    deaf: list[bool] = []

    def manager() -> None:
        deaf.append(deaf_child())
        again.wait()
        deaf.append(deaf_child())

    with interrupted_once() as started:
        thread = threading.Thread(target=manager)
        thread.start()
        started()
        again.set()
        thread.join()
    assert deaf == [True, True]


def test_afterwards_all_is_as_before() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with interrupted_once():
        pass
    assert signal.getsignal(signal.SIGINT) is handler
    assert not deaf_child()
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_thread_leaves_ctrl_c_as_it_is() -> None:
    handlers = []

    def work() -> None:
        with interrupted_once() as started:
            started()
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]
