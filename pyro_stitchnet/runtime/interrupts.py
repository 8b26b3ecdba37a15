"""Ctrl-C while worker processes run: heard by the process that started them, which ends them."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

__all__ = ["interrupted_once"]


@contextmanager
def interrupted_once() -> Iterator[Callable[[], None]]:
    """Raise KeyboardInterrupt for the first Ctrl-C within, when workers can be ended in order.

    A terminal sends Ctrl-C to workers too. Those started within do not hear it, nor do those that
    take the place of one that died. A second Ctrl-C is ignored: it would tear the clearing up.
    Only the main thread hears Ctrl-C, so elsewhere, and on Windows, this does nothing.

    Yields:
        To be called when the workers have started. A Ctrl-C pressed until then is raised by it.
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

    resource_tracker.ensure_running()  # when first needed, it would let the signal through again
    # Threads and processes made from here on inherit this. Other threads still take the signal,
    # whose handler Python runs in this one.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield started
    finally:
        signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
