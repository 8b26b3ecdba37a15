"""A prepared dataset: stored slices come back, and damaged files are named."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_stitchnet.data.datasets.dataset import FORMAT, ROWS, Dataset
from pyro_stitchnet.data.datasets.shards import MANIFEST, TEXT, write_shard

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
    manifest = pd.concat([rows(0, 3), rows(1, 2)])
    manifest.to_csv(tmp_path / ROWS, index=False)
    about = {"format": FORMAT, "preprocessing": {"size": SIZE}}
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    return tmp_path


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
    manifest = pd.read_csv(folder / ROWS)
    manifest["patient"] = "007"
    manifest.to_csv(folder / ROWS, index=False)
    assert set(Dataset(folder).patients) == {"007"}


def test_an_unfinished_dataset_is_refused_with_a_remedy(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match="interrupted; run the same"):
        Dataset(folder)
    with pytest.raises(FileNotFoundError, match="nothing: no prepared dataset"):
        Dataset(folder / "nothing")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("dataset.json", "{", "damaged"),
        ("dataset.json", '{"format": 99}', "format 99, but this version reads"),
        (ROWS, "slice,patient\n", "no column"),
        (ROWS, "", "damaged"),
    ],
)
def test_damaged_tables_are_refused(folder: Path, file: str, content: str, words: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=rf"dataset\.json: .*{words}"):
        Dataset(folder)


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
    after = Dataset(folder)[3][1]
    assert torch.equal(after, torch.from_numpy(stored(7, 2)[0, 1]))
    assert not torch.equal(after, before)
