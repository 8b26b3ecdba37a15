"""Ctrl-C while worker processes run: only the process that started them receives it."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

__all__ = ["interrupted_once"]


@contextmanager
def interrupted_once() -> Iterator[Callable[[], None]]:
    """Raise KeyboardInterrupt for the first Ctrl-C in the block, once workers can be ended cleanly.

    A terminal sends Ctrl-C to worker processes, too. Workers that are started in the block ignore
    it, and so do their replacements. Later presses are ignored, since they would interrupt the
    cleanup. Outside the main thread, and on Windows, the block changes nothing.

    Yields:
        A function to call when the workers have started. It raises a Ctrl-C that came before.
    """
    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or not hasattr(signal, "pthread_sigmask"):
        yield lambda: None
        return
    pressed = ready = False

    def interrupt(*_: object) -> None:
        nonlocal pressed
        first, pressed = not pressed, True
        if first and ready:
            raise KeyboardInterrupt

    def started() -> None:
        nonlocal ready
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        ready = True
        if pressed:
            raise KeyboardInterrupt

    resource_tracker.ensure_running()  # started later, it would unblock the signal
    # Threads and processes started from here on inherit the mask. Other threads still receive the
    # signal; Python runs its handler in the main thread.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield started
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
