"""Atomic writing of files, and checks of folders for results."""

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["naming", "refuse_others", "remove_unfinished", "temporary_path", "write_atomically"]


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add ``path`` to an OSError that names no file, such as that of a full disk.

    Args:
        path: the file or folder that is written in the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


def refuse_others(folder: str | os.PathLike[str], own: Collection[str]) -> None:
    """Refuse a folder for results that holds other files.

    Args:
        folder: the folder; it need not exist.
        own: names that may be in it; hidden files may be in it, too.

    Raises:
        FileExistsError: there are other files; the message names some.
    """
    path = Path(folder)
    names = (one.name for one in path.iterdir()) if path.is_dir() else ()
    if others := sorted(name for name in names if name not in own and name[0] != "."):
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise FileExistsError(
            f"{path}: holds other files ({shown}), among which results would get lost; choose an "
            "empty or new folder as --out"
        )


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove what killed runs left half-written in a folder: hidden names that end in ``.tmp``."""
    for left in Path(folder).glob(".*.tmp"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def temporary_path(path: Path) -> Path:
    """Return a new name beside a file or folder, such as :func:`remove_unfinished` looks for."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def write_atomically(path: str | os.PathLike[str], data: str | bytes | memoryview) -> None:
    """Write a file atomically: it holds either all of its old content or all of the new.

    The data is written to a temporary file in the same directory, which is then renamed to
    ``path``. If writing fails, the temporary file is removed and ``path`` does not change.

    Args:
        path: the file to write. Its directory must exist.
        data: the whole content. Text is written as UTF-8, its line ends unchanged.

    Raises:
        FileNotFoundError: the directory does not exist.
        OSError: the file cannot be written; the error names it.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {path}: the directory {path.parent} does not exist; create it first"
        )
    # `tempfile` makes files that only their owner can read, also after a rename.
    temporary = temporary_path(path)
    try:
        with naming(path), temporary.open("xb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())  # without it a crash after the rename may leave an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
