"""Writing files so that no reader ever meets half of one, and none is lost among others."""

import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["naming", "refuse_others", "write_atomically"]


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lets an OSError that names no file name ``path``: a full disk does not say which it is.

    Args:
        path: What is written within.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def refuse_others(folder: str | os.PathLike[str], own: Collection[str]) -> None:
    """Refuses a folder for results that holds what is none of them.

    Args:
        folder: It may be missing.
        own: The names that may be in it; those that begin with a dot may, too.

    Raises:
        FileExistsError: If there are others; the error names some.
    """
    path = Path(folder)
    names = (one.name for one in path.iterdir()) if path.is_dir() else ()
    if others := sorted(name for name in names if name not in own and name[0] != "."):
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise FileExistsError(
            f"{path}: holds other files ({shown}), among which results would get lost; choose an "
            "empty folder, or one that is not there yet, as --out"
        )


def write_atomically(path: str | os.PathLike[str], data: str | bytes | memoryview) -> None:
    """Writes a file in one step: it has either its old contents or all of its new ones.

    The data go to a temporary name in the same directory, which is then renamed over ``path``.
    If writing fails, the temporary file is removed and ``path`` stays as it was.

    Args:
        path: The file to write. Its directory must exist.
        data: The whole contents. Text is written as UTF-8, its line ends unchanged.

    Raises:
        FileNotFoundError: If the directory does not exist.
        OSError: If it cannot be written; the error names the file.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {path}: the directory {path.parent} does not exist; create it first"
        )
    # Not `tempfile`: its files are readable by their owner only, and would stay so when renamed.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with naming(path), temporary.open("xb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())  # else a crash after the rename may leave an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
