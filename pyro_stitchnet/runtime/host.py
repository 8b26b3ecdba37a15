"""Standard streams and environment variables, as a notebook, a scheduler or a shell left them."""

import os
import re
import select
import sys

__all__ = ["check_working_folder", "discard_output", "flush_output", "nobody_reads", "settle"]

LEAST_COLUMNS = 20


def settle() -> None:
    """Make the process independent of what a notebook, a scheduler or a shell left behind.

    It must be called before torch and matplotlib are imported.
    """
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        # A name that the locale cannot print must not end a run. A notebook's stream has no locale.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    os.environ["MPLBACKEND"] = "agg"  # no command opens a window
    for name in ("COLUMNS", "LINES"):
        value = os.environ.get(name, str(LEAST_COLUMNS))
        if not value.isdecimal() or int(value) < LEAST_COLUMNS:
            del os.environ[name]  # then the size is the terminal's
    # Threads that wait for work must not spin: they take the core from the thread that has work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    if not re.fullmatch(r"\s*0*[1-9]\d{0,4}\s*(,\s*\d+\s*)*", threads):
        print(f"note: OMP_NUM_THREADS is {threads!r}, not a number; ignored", file=sys.stderr)
        del os.environ["OMP_NUM_THREADS"]


def check_working_folder() -> None:
    """Refuse a working folder that was removed: relative paths and torch need it.

    Raises:
        FileNotFoundError: the folder was removed.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError(
            "the working folder was removed; change to another one and run the command again"
        ) from None


def flush_output() -> None:
    """Write what is buffered for the standard streams.

    Raises:
        OSError: a stream cannot be written, such as a pipe whose reader has gone.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def nobody_reads() -> bool:
    """Return whether a standard stream is a pipe whose reader has gone."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        try:
            poll.register(stream.fileno(), 0)  # no event but errors
        except OSError:  # not a stream of the system
            continue
    return any(event & select.POLLERR for _, event in poll.poll(0))


def discard_output() -> None:
    """Send the standard streams nowhere: Python would fail again when it flushes them at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _open_streams() -> None:
    """Open streams that the host closed; a file would take their numbers, and messages."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w" if number else "r", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, nowhere)
