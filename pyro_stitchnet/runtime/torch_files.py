"""Files of torch: tensors and plain data, with a checksum of every part."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["read", "write"]


def write(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain data atomically: a zip file, with the CRC-32 of every part."""
    file = io.BytesIO()
    torch.save(content, file)
    write_atomically(path, file.getbuffer())


def read(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read a file of ``torch.save``; no code in the file is run.

    torch ignores the checksums, so a flipped bit would change a weight. They are verified here.

    Args:
        path: the file.
        device: where tensors go.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not a file of torch.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        return torch.load(_verified(content), map_location=device, weights_only=True)
    except Exception as error:
        # An unpickler may fail in any way, and torch's message advises an unsafe load.
        raise ValueError(
            f"{path}: damaged, or not a file of torch; restore it from a copy"
        ) from error


def _verified(content: bytes) -> io.BytesIO:
    """Copy the parts of a zip file, each verified, into a new one.

    The rest of the file has no checksum, and torch uses it: for a part that is marked as a folder
    it returns memory that was never written.

    Raises:
        zipfile.BadZipFile: a part differs from its checksum, or this is not a zip file.
        ValueError: a part is compressed, so it may be larger than the file; torch's are not.
    """
    verified = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(verified, "w") as new:
        for part in old.infolist():
            if part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size:
                raise ValueError(f"{part.filename}: compressed")
            new.writestr(part.filename, old.read(part))
    verified.seek(0)
    return verified
