"""One run at a time in a folder for results."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pyro_stitchnet.runtime.files import naming

__all__ = ["LOCK", "check_free", "only_run"]

LOCK = ".lock"
"""The lock's file in a folder for results. It stays there, empty, after the run."""


def check_free(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder into which another run is writing; nothing is created.

    Raises:
        BlockingIOError: as :func:`only_run`.
    """
    if Path(folder, LOCK).exists():
        with only_run(folder):
            return


@contextmanager
def only_run(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other runs from writing into a folder for results.

    The operating system holds the lock, so it frees that of a killed run.

    Args:
        folder: created if missing.

    Raises:
        BlockingIOError: another run is writing there; the message names it.
        FileNotFoundError: the folder was removed during the block, or its lock was.
        OSError: the folder cannot be written; the error names it.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    file = path / LOCK
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        owner = file.read_text(encoding="utf-8") or "its process is unknown"
        raise BlockingIOError(
            f"{path}: another run is writing here ({owner}); wait for it, or choose another --out"
        ) from None
    own = file.stat()
    try:
        with naming(file):
            file.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        try:
            yield
        except (OSError, ValueError) as error:
            if not _is_same(file, own):
                raise _removed(path) from error
            raise
        if not _is_same(file, own):
            raise _removed(path)
    finally:
        if _is_same(file, own):
            file.write_text("", encoding="utf-8")
        lock.release()


def _is_same(file: Path, before: os.stat_result) -> bool:
    """Whether a file still is the one of before, and not removed or replaced."""
    try:
        return os.path.samestat(file.stat(), before)
    except OSError:
        return False


def _removed(folder: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"{folder}: was removed while this ran (its file {LOCK} is gone); run the same command "
        "again"
    )
