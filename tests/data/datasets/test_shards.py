"""Shards are read as by Zarr, and any damage is detected."""

import pickle
import random
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import ZstdCodec

from pyro_stitchnet.data.datasets.shards import (
    MANIFEST,
    ROWS,
    SKIPPED,
    TEXT,
    Shard,
    finished_shards,
    read_table,
    write_shard,
)

SIZE = 32
FILE = Path("slices") / "c" / "0" / "0" / "0" / "0"


def rows(shard: int, n: int) -> pd.DataFrame:
    table = {
        column: [f"{column} {shard} {i}" for i in range(n)] if column in TEXT else [0] * n
        for column in MANIFEST
    }
    return pd.DataFrame({**table, "shard": [shard] * n, "row": range(n)})


def stored(shard: int, n: int) -> np.ndarray:
    """Return grey values and label sets."""
    return np.random.default_rng(shard).integers(1, 256, (n, 2, SIZE, SIZE)).astype(np.uint8)


def read(shard: Shard, number: int, n: int, row: int) -> np.ndarray:
    """Read a slice of shard ``number``, which had n slices."""
    return shard.read(row, zlib.crc32(stored(number, n)[min(row, n - 1)]))


def write(folder: Path, shard: int, slices: np.ndarray) -> Path:
    nothing = pd.DataFrame(columns=["scan", "reason"])
    write_shard(folder, shard, slices, rows(shard, len(slices)), nothing)
    return folder / "shards" / f"{shard:05d}"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a shard of three slices; read-only."""
    folder = tmp_path_factory.mktemp("original")
    (folder / "shards").mkdir()
    write(folder, 0, stored(0, 3))
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of ``original`` to modify."""
    return shutil.copytree(original, tmp_path / "copy")


def test_slices_are_read_as_by_zarr(original: Path) -> None:
    array = zarr.open_group(original / "shards" / "00000", mode="r")["slices"]
    assert isinstance(array, zarr.Array)
    assert (np.asarray(array[:]) == stored(0, 3)).all()
    shard = Shard(original, 0, SIZE)
    for row in (2, 0, 1, 2):
        assert (read(shard, 0, 3, row) == stored(0, 3)[row]).all()


@pytest.mark.parametrize("codec", [ZstdCodec(level=5, checksum=False), ZstdCodec(level=19)])
def test_any_level_of_compression_is_read(tmp_path: Path, codec: ZstdCodec) -> None:
    whole = stored(1, 2)
    zarr.create_group(tmp_path / "shards" / "00000").create_array(
        "slices", shape=whole.shape, dtype="uint8", chunks=(1, *whole.shape[1:]),
        shards=whole.shape, compressors=codec,
    )[:] = whole  # fmt: skip
    assert (read(Shard(tmp_path, 0, SIZE), 1, 2, 1) == whole[1]).all()


def test_a_shard_can_be_pickled(original: Path) -> None:
    shard = pickle.loads(pickle.dumps(Shard(original, 0, SIZE)))
    assert (read(shard, 0, 3, 1) == stored(0, 3)[1]).all()


def test_the_bytes_are_the_same_each_time(original: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    again = write(tmp_path, 0, stored(0, 3))
    for path in again.rglob("*"):
        twin = original / path.relative_to(tmp_path)
        assert path.is_dir() or path.read_bytes() == twin.read_bytes()


# --- Damage ---------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    bit=st.one_of(st.integers(0), st.integers(-8 * 80, -1))
)  # anywhere, or in the index at the end
def test_every_damaged_bit_is_detected(
    bit: int, original: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = shutil.copytree(original, tmp_path_factory.mktemp("damaged") / "copy")
    path = folder / "shards" / "00000" / FILE
    content = bytearray(path.read_bytes())
    place, which = divmod(bit, 8)
    content[place % len(content)] ^= 1 << which
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"00000: damaged \(.*prepare again"):
        [read(Shard(folder, 0, SIZE), 0, 3, row) for row in range(3)]


@pytest.mark.parametrize("kept", [0, 3, 40, 0.5, 0.99])
def test_a_shard_cut_short_is_named(folder: Path, kept: float) -> None:
    path = folder / "shards" / "00000" / FILE
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(ValueError, match=r"00000: damaged \(.*prepare again"):
        Shard(folder, 0, SIZE)


@pytest.mark.parametrize("gone", [".", "slices/zarr.json", "slices/c"])
def test_a_shard_with_missing_files_is_named(folder: Path, gone: str) -> None:
    path = folder / "shards" / "00000" / gone
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(ValueError, match=r"00000: damaged \(.*No such file.*prepare again"):
        Shard(folder, 0, SIZE)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"shape": [9, 2, 32, 32]}', '{"shape": [3, 2, 32, 33]}', "[" * 10**5]
)
def test_a_shard_with_another_description_is_named(folder: Path, text: str) -> None:
    (folder / "shards" / "00000" / "slices" / "zarr.json").write_text(text)
    with pytest.raises(ValueError, match=r"00000: damaged \(.*prepare again"):
        Shard(folder, 0, SIZE)


def test_a_slice_that_was_not_written_is_missing(tmp_path: Path) -> None:
    slices = stored(0, 3)
    (tmp_path / "shards").mkdir()
    write(tmp_path, 0, slices)
    array = zarr.open_array(tmp_path / "shards" / "00000" / "slices", mode="r+")
    array[1] = 0  # Zarr does not store chunks of zeros
    shard = Shard(tmp_path, 0, SIZE)
    assert (read(shard, 0, 3, 2) == slices[2]).all()
    with pytest.raises(ValueError, match=r"00000: damaged \(a slice is missing\).*prepare again"):
        read(shard, 0, 3, 1)
    with pytest.raises(ValueError, match=r"00000: damaged \(.*prepare again"):
        read(shard, 0, 3, 3)


def test_another_slice_is_not_taken_for_the_manifest_s(original: Path) -> None:
    crc32 = read_table(original / "shards" / "00000" / ROWS)["crc32"]
    shard = Shard(original, 0, SIZE)
    assert (shard.read(1, crc32[1]) == stored(0, 3)[1]).all()
    with pytest.raises(ValueError, match=r"00000: damaged \(a slice differs.*prepare again"):
        shard.read(1, crc32[2])


# --- Writing --------------------------------------------------------------------------------------


def test_a_shard_is_written_atomically(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="No space left"):
        write(folder, 2, stored(2, 2))
    monkeypatch.undo()
    assert [p.name for p in (folder / "shards").iterdir()] == ["00000"]
    assert list(finished_shards(folder)) == [0]


def test_an_existing_shard_is_kept(folder: Path) -> None:
    path = folder / "shards" / "00000"
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    write(folder, 0, stored(7, 1))
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert len(list((folder / "shards").iterdir())) == 1


def test_skipped_scans_are_stored_with_their_shard(folder: Path) -> None:
    skipped = pd.DataFrame({"scan": ["007"], "reason": ["a, b\rc\nd"]})
    write_shard(folder, 2, stored(2, 0), rows(2, 0), skipped)
    assert finished_shards(folder)[2][1].to_dict("list") == skipped.to_dict("list")


@pytest.mark.parametrize("name", [ROWS, SKIPPED, "shard.json"])
def test_no_damaged_table_is_believed(original: Path, tmp_path: Path, name: str) -> None:
    """A preparation that resumes reads the tables of finished shards."""
    folder = shutil.copytree(original, tmp_path / "copy")
    path = folder / "shards" / "00000" / name
    good, draw = path.read_bytes(), random.Random(0)
    rows, skipped = finished_shards(folder)[0]
    for _ in range(40):
        content = bytearray(good)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            again = finished_shards(folder)[0]
        except ValueError as error:
            assert "00000" in str(error)  # noqa: PT017 - a space of the JSON file is no fault
        else:
            assert name == "shard.json"
            assert again[0].equals(rows)
            assert again[1].equals(skipped)
    path.unlink()
    with pytest.raises(ValueError, match=r"00000: damaged .*remove it, and prepare again"):
        finished_shards(folder)


def test_a_shard_of_another_plan_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="00000: belongs to another dataset"):
        finished_shards(folder, "of today")
