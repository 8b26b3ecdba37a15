"""The label sets of a mask's values, and the manifest's entries for each slice."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.slices import allowed_sets, write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.labels import ALL_LABELS, LABEL_RULES
from pyro_stitchnet.runtime.workers import work


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_a_rule_maps_values_to_labels(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path, rule: str
) -> None:
    values = sorted(LABEL_RULES[rule])
    folder = image_folder(tmp_path / "in", values)
    _, sets = prepared(f"{folder}@{rule}", out=tmp_path / "out")[0]
    for value in values:
        row = np.flatnonzero(np.asarray(Image.open(folder / "masks" / "a.png"))[:, 0] == value)[0]
        allowed = allowed_sets(sets)[row, 0].nonzero().flatten().tolist()
        assert set(allowed) == set(LABEL_RULES[rule][value])


@pytest.mark.parametrize(
    ("suffix", "masks", "cautious"),
    [("", True, True), ("@folder", True, True), ("@full", True, False), ("", False, False)],
)
def test_there_is_a_caution_only_where_the_rule_was_assumed(
    image_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    suffix: str,
    masks: bool,
    cautious: bool,
) -> None:
    folder = image_folder(tmp_path / "in", [0, 1])
    if not masks:
        (folder / "masks" / "a.png").unlink()
    dataset = prepared(f"{folder}{suffix}", out=tmp_path / "out")
    assert ("rule 'full'" in dataset.about["sources"]["folder"]["caution"]) == cautious


def test_a_few_images_start_no_processes_by_default(
    image_folder: Callable[..., Path],
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []

    def noted(units: Any, workers: int, *_: object, **__: object) -> Iterator[Any]:
        started.append(workers)
        return work(units, 0)

    monkeypatch.setattr("pyro_stitchnet.data.datasets.prepare.work", noted)
    monkeypatch.setattr("pyro_stitchnet.data.datasets.prepare.FEW_IMAGES", 2)
    monkeypatch.setattr("pyro_stitchnet.data.datasets.prepare.usable_cores", lambda: 3)
    few = image_folder(tmp_path / "few", [0, 1], names=("a.png", "b.png"))
    many = image_folder(tmp_path / "many", [0, 1], names=("a.png", "b.png", "c.png"))
    volumes = volume_folder(tmp_path / "volumes", 1)
    for number, folder in enumerate((few, many, volumes)):
        prepared(folder, out=tmp_path / f"out{number}", workers=None)
    prepared(few, out=tmp_path / "hurried", workers=None, time_limit=60)
    assert started == [0, 3, 3, 3]


def test_a_written_folder_comes_back(prepared: Callable[..., Dataset], tmp_path: Path) -> None:
    made = phantom_slices(3, 2, size=64)
    write_folder(made, tmp_path / "labelled")
    dataset = prepared(
        tmp_path / "labelled",
        out=tmp_path / "out",
        preprocessing=Preprocessing(size=64, lungs="none"),
    )
    loaded = dataset.load()
    order = [list(made.names).index(name) for name in dataset.names]
    assert torch.equal(loaded.images, (made.take(order).images * 255).round() / 255)
    assert torch.equal(loaded.label_sets, made.take(order).label_sets)
    assert loaded.patients == list(made.take(order).patients)


def test_the_manifest_lists_the_labels_of_each_slice(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    image_folder(tmp_path / "full", [0, 1, 3], names=("a.png", "b.png"))
    image_folder(tmp_path / "part", [0, 1, 2], names=("c.png",))
    made = image_folder(tmp_path / "none", [0], names=("d.png",))
    (made / "masks" / "d.png").unlink()
    dataset = prepared(
        tmp_path / "full", f"{tmp_path / 'part'}@infection", tmp_path / "none", out=tmp_path / "out"
    )
    table = dataset.manifest.set_index("slice")
    assert table["label_sets"].tolist() == ["0 1 3", "0 1 3", "0 1 2+3", "0+1+2+3"]
    assert table["labelled"].tolist() == [True, True, True, False]
    assert table["complete"].tolist() == [True, True, False, False]
    assert table["has_consolidation"].tolist() == [True, True, False, False]
    assert not table["has_ggo"].any()
    assert (dataset[3][1] == ALL_LABELS).all()
    assert table["file"]["a.png"] == str(tmp_path / "full" / "images" / "a.png")


def test_a_partially_labelled_slice_counts_as_labelled(
    prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    for path, value in (("imagesTr/a_0000.png", 255), ("labelsTr/a.png", 1)):
        (tmp_path / "in" / path).parent.mkdir(parents=True)
        Image.fromarray(np.eye(32, dtype=np.uint8) * np.uint8(value)).save(tmp_path / "in" / path)
    about = {"channel_names": {"0": "CT"}, "file_ending": ".png"}
    labels = {"background": 0, "ignore": 1, "lung": 2}
    (tmp_path / "in" / "dataset.json").write_text(json.dumps({**about, "labels": labels}))
    row = prepared(tmp_path / "in", out=tmp_path / "out").manifest.iloc[0]
    assert row["label_sets"] == "0 0+1+2+3"
    assert row["labelled"]
    assert not row["complete"]


def test_volumes_give_a_row_for_each_slice(
    volume_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    dataset = prepared(volume_folder(tmp_path / "in", 2), out=tmp_path / "out")
    table = dataset.manifest
    assert len(table) == 8
    assert table["slice"][1] == "000.npy/0001"
    assert table["index"].tolist() == [0, 1, 2, 3] * 2
    assert table["hounsfield"].all()
    assert set(dataset.patients) == {"000", "001"}
    assert sorted(set(table["shard"])) == [0, 1]
