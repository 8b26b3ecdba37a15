"""Checksums of the files that a later command reads back."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["REMEDY", "read_json", "sha256", "verify", "write_json"]

KEY = "sha256"
REMEDY = "remove it, and run the command that wrote it again"
"""The end of the message on a damaged file."""


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON with its own checksum, atomically.

    The last key, ``sha256``, holds the checksum of the others.

    Args:
        path: the file; its folder must exist.
        content: JSON data, without the key ``sha256``.

    Raises:
        ValueError: a number is infinite or not a number.
        OSError: the file cannot be written; the error names it.
    """
    text = json.dumps({**content, KEY: _digest(content)}, indent=2, allow_nan=False)
    write_atomically(path, text + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote, without its checksum.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or was edited; the message names it.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{path}: damaged (no JSON); {REMEDY}") from error
    stored = content.pop(KEY, None) if isinstance(content, dict) else None
    if stored is None:
        raise ValueError(f"{path}: damaged, or not a file of stitchnet (no checksum); {REMEDY}")
    if stored != _digest(content):
        raise ValueError(f"{path}: {_CHANGED}; {REMEDY}")
    return content


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: str | Path, *expected: object) -> None:
    """Check a file against the checksum that was noted when it was written.

    Args:
        path: the file.
        expected: what :func:`sha256` returned then. There are several if a run may have been killed
            while it replaced the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file differs; the message names it.
    """
    if sha256(path) not in expected:
        raise ValueError(f"{path}: {_CHANGED}; {REMEDY}")


_CHANGED = "damaged or edited since it was written (its checksum differs)"


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
