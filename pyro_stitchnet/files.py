"""Writing files so that no reader ever meets half of one."""

import os
import secrets
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Writes a file in one step: it has either its old contents or all of its new ones.

    The data go to a temporary name in the same directory, which is then renamed over ``path``.
    If writing fails, the temporary file is removed and ``path`` stays as it was.

    Args:
        path: The file to write. Its directory must exist.
        data: The whole contents. Text is written as UTF-8, its line ends unchanged.

    Raises:
        FileNotFoundError: If the directory does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {path}: the directory {path.parent} does not exist; create it first"
        )
    # Not `tempfile`: its files are readable by their owner only, and would stay so when renamed.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())  # else a crash after the rename may leave an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
