"""Files of torch: no flipped bit is read, and no part may claim to be larger than the file."""

import io
import random
import zipfile
from pathlib import Path

import pytest
import torch

from pyro_stitchnet.runtime import torch_files

CONTENT = {"weights": {f"w{n}": torch.arange(40.0) * n for n in range(8)}, "words": ["a", "b"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch_files.write(CONTENT, tmp_path / "some.pt")
    return tmp_path / "some.pt"


def equal(one: dict, other: dict) -> bool:
    weights = one["weights"].keys() == other["weights"].keys() and all(
        torch.equal(value, other["weights"][name]) for name, value in one["weights"].items()
    )
    return weights and one["words"] == other["words"]


def test_what_is_written_is_read(path: Path) -> None:
    assert equal(torch_files.read(path), CONTENT)
    assert equal(torch.load(path, weights_only=True), CONTENT)


def test_no_flipped_bit_changes_what_is_read(path: Path) -> None:
    """Every bit of the zip's directory, which has no checksum, and some of the rest."""
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        directory = file.start_dir
    draw = random.Random(0)
    bits = [8 * directory + draw.randrange(8 * (len(whole) - directory)) for _ in range(400)]
    bits += [draw.randrange(8 * directory) for _ in range(200)]
    refused = 0
    for bit in bits:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            read = torch_files.read(path)
        except ValueError:
            refused += 1
        else:
            assert equal(read, CONTENT)  # a bit of a date, for instance
    assert refused > 200


def test_torch_itself_reads_memory_for_a_part_that_is_marked_as_a_folder(path: Path) -> None:
    """The reason for copying the parts: their checksums are right."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        place = file.start_dir
    for _ in range(5):
        place = content.index(b"PK\x01\x02", place + 1)
    content[place + 38] |= 0x10  # the external attributes
    path.write_bytes(content)
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
    assert equal(torch_files.read(path), CONTENT)


def test_compressed_parts_are_refused(path: Path) -> None:
    """A few bytes could become gigabytes."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    path.write_bytes(bomb.getvalue())
    with pytest.raises(ValueError, match=r"some\.pt: damaged, or not a file of torch"):
        torch_files.read(path)
