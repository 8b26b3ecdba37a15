"""A prepared dataset: stored slices come back, and damaged files are named."""

import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_stitchnet.data.datasets.dataset import FORMAT, ROWS, SKIPPED, Dataset
from pyro_stitchnet.data.datasets.shards import (
    MANIFEST,
    TEXT,
    checksums,
    finished_shards,
    write_shard,
    write_table,
)
from pyro_stitchnet.runtime.checksums import read_json, write_json

SIZE = 32


def rows(shard: int, n: int) -> pd.DataFrame:
    table = {
        column: [f"{column} {shard} {i}" for i in range(n)] if column in TEXT else [0] * n
        for column in MANIFEST
    }
    return pd.DataFrame({**table, "shard": [shard] * n, "row": range(n)})


def stored(shard: int, n: int) -> np.ndarray:
    """Return grey values and label sets."""
    return np.random.default_rng(shard).integers(1, 256, (n, 2, SIZE, SIZE)).astype(np.uint8)


def write(folder: Path, shard: int, n: int) -> None:
    nothing = pd.DataFrame(columns=["scan", "reason"])
    write_shard(folder, shard, stored(shard, n), rows(shard, n), nothing)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards, of 3 and of 2 slices."""
    (tmp_path / "shards").mkdir()
    write(tmp_path, 0, 3)
    write(tmp_path, 1, 2)
    finish(tmp_path)
    return tmp_path


def finish(folder: Path, patient: str | None = None) -> None:
    """Write the tables of the whole dataset, and dataset.json."""
    manifest, skipped = map(pd.concat, zip(*finished_shards(folder).values(), strict=True))
    write_table(manifest.assign(patient=patient) if patient else manifest, folder / ROWS)
    write_table(skipped, folder / SKIPPED)
    about = {"format": FORMAT, "preprocessing": {"size": SIZE}, "checksums": checksums(folder)}
    write_json(folder / "dataset.json", about)


def test_stored_slices_come_back(folder: Path) -> None:
    dataset = Dataset(folder)
    assert (len(dataset), dataset.size) == (5, SIZE)
    for i, (shard, row) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        image, sets = dataset[i]
        assert image.dtype == torch.float32
        assert sets.dtype == torch.uint8
        grey, bits = torch.from_numpy(stored(shard, 3 - shard)[row])
        assert torch.equal(image, grey.float() / 255)
        assert torch.equal(sets, bits)
    assert dataset.names[3] == "slice 1 0"
    assert dataset.patients[3] == "patient 1 0"


def test_part_of_a_dataset_stays_on_disk_until_loaded(folder: Path) -> None:
    part = Dataset(folder).take([4, 0])
    assert part.names == ["slice 1 1", "slice 0 0"]
    loaded = part.load()
    assert torch.equal(loaded.images[0], part[0][0])
    assert torch.equal(loaded.label_sets[1], part[1][1])
    assert loaded.patients == part.patients
    nothing = part.take([]).load()
    assert nothing.images.shape == (0, SIZE, SIZE)


def test_a_dataset_can_be_pickled(folder: Path) -> None:
    dataset = Dataset(folder)
    image, _ = dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[0][0], image)
    assert len(pickle.dumps(dataset)) < 20_000, "slices are pickled with it"


def test_patients_keep_their_leading_zeros(folder: Path) -> None:
    finish(folder, patient="007")
    assert set(Dataset(folder).patients) == {"007"}


def test_an_unfinished_dataset_is_refused_with_a_remedy(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match="interrupted; run the same"):
        Dataset(folder)
    with pytest.raises(FileNotFoundError, match="nothing: no prepared dataset"):
        Dataset(folder / "nothing")


def test_a_dataset_of_another_format_is_refused(folder: Path) -> None:
    write_json(folder / "dataset.json", {"format": 99})
    with pytest.raises(ValueError, match=r"dataset\.json: format 99, but this version reads"):
        Dataset(folder)


@pytest.mark.parametrize("name", ["dataset.json", ROWS, SKIPPED])
def test_no_flipped_bit_is_believed(folder: Path, name: str) -> None:
    """A flip could change patients, labels or preprocessing."""
    path = folder / name
    good, draw = path.read_bytes(), random.Random(0)
    about, manifest = Dataset(folder).about, Dataset(folder).manifest
    for _ in range(60):
        content = bytearray(good)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            again = Dataset(folder)
        except ValueError as error:
            assert name in str(error)  # noqa: PT017 - a space of the JSON file is no fault
        else:
            assert name == "dataset.json"
            assert again.about == about
            assert again.manifest.equals(manifest)


@pytest.mark.parametrize("name", [ROWS, SKIPPED, "shards", "shards/00001"])
def test_a_dataset_that_lost_files_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(
        (ValueError, OSError), match=f"{path.name}.*remove .*dataset.json, and prep"
    ):
        Dataset(folder)


def test_shards_that_changed_places_are_noticed(folder: Path) -> None:
    one, other = (folder / "shards" / name for name in ("00000", "00001"))
    one.rename(folder / "shards" / "x")
    other.rename(one)
    (folder / "shards" / "x").rename(other)
    with pytest.raises(ValueError, match=r"00000: damaged .*prepare again"):
        Dataset(folder)[0]


def test_what_a_slice_can_tell_comes_from_the_manifest(folder: Path) -> None:
    """Not from the labels that it happens to hold."""
    dataset = Dataset(folder)
    dataset.manifest["complete"] = [True, False, True, False, False]
    assert dataset.load().complete == [True, False, True, False, False]
    assert dataset.load().take([1, 2]).complete == [False, True]
    assert read_json(folder / "dataset.json")["format"] == FORMAT


def test_a_damaged_shard_is_named(folder: Path) -> None:
    chunk = folder / "shards" / "00001" / "slices" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[5:40] = bytes(35)
    chunk.write_bytes(content)
    dataset = Dataset(folder)
    dataset[0]
    with pytest.raises(ValueError, match=r"00001: damaged .*prepare again"):
        dataset[3]


def test_a_new_dataset_in_the_same_folder_is_read_again(folder: Path) -> None:
    before = Dataset(folder)[3][1]
    shutil.rmtree(folder / "shards" / "00001")
    nothing = pd.DataFrame(columns=["scan", "reason"])
    write_shard(folder, 1, stored(7, 2), rows(1, 2), nothing)
    finish(folder)
    after = Dataset(folder)[3][1]
    assert torch.equal(after, torch.from_numpy(stored(7, 2)[0, 1]))
    assert not torch.equal(after, before)
