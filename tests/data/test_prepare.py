"""Preparing: what a mask's values become, and that stopping, killing and workers change nothing."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image

from pyro_stitchnet.data import prepare as preparing
from pyro_stitchnet.data.dataset import Dataset
from pyro_stitchnet.data.phantom import phantom_slices
from pyro_stitchnet.data.prepare import find_jobs, prepare
from pyro_stitchnet.data.preprocess import Preprocessing
from pyro_stitchnet.data.slices import ALL_LABELS, allowed_sets, write_folder
from pyro_stitchnet.labels import LABEL_RULES

WHOLE = Preprocessing(size=32, lungs="none")


def picture_folder(root: Path, values: list[int], *, names: tuple[str, ...] = ("a.png",)) -> Path:
    """Slices whose masks hold the values, in stripes."""
    mask = np.repeat(np.array(values, np.uint8), 32 // len(values) + 1)[:32, None].repeat(32, 1)
    grey = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    for part, picture in (("images", grey), ("masks", mask)):
        (root / part).mkdir(parents=True)
        for name in names:
            Image.fromarray(picture).save(root / part / name)
    rows = [f"{name},patient {name}" for name in names]
    (root / "index.csv").write_text("\n".join(["file,patient", *rows]) + "\n")
    return root


def volume_folder(root: Path, n: int) -> Path:
    """Volumes of phantoms in HU, four slices each, labelled."""
    rows = ["file,patient"]
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    population = [phantom_slices([i], 4, size=64) for i in range(min(n, 3))]
    for i in range(n):
        made = population[i % 3]
        np.save(root / "images" / f"{i:03}.npy", made.images.numpy() * 1500 - 1250)
        np.save(root / "masks" / f"{i:03}.npy", made.labels().numpy().astype(np.uint8))
        rows.append(f"{i:03}.npy,{i:03}")
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    return root


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def do(*sources: object, out: Path, **options: object) -> Dataset:
    settings = {"preprocessing": WHOLE, "progress": False, **options}
    return prepare([str(source) for source in sources], out, **settings)  # type: ignore[arg-type]


# --- What becomes of labels -----------------------------------------------------------------------


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_a_rule_says_what_values_allow(tmp_path: Path, rule: str) -> None:
    values = sorted(LABEL_RULES[rule])
    folder = picture_folder(tmp_path / "in", values)
    _, sets = do(f"{folder}@{rule}", out=tmp_path / "out")[0]
    for value in values:
        row = np.flatnonzero(np.asarray(Image.open(folder / "masks" / "a.png"))[:, 0] == value)[0]
        allowed = allowed_sets(sets)[row, 0].nonzero().flatten().tolist()
        assert set(allowed) == set(LABEL_RULES[rule][value])


def test_what_the_house_writes_is_prepared(tmp_path: Path) -> None:
    made = phantom_slices(3, 2, size=64)
    write_folder(made, tmp_path / "labelled")
    dataset = do(
        tmp_path / "labelled",
        out=tmp_path / "out",
        preprocessing=Preprocessing(size=64, lungs="none"),
    )
    loaded = dataset.load()
    order = [list(made.names).index(name) for name in dataset.names]
    assert torch.equal(loaded.images, (made.take(order).images * 255).round() / 255)
    assert torch.equal(loaded.label_sets, made.take(order).label_sets)
    assert loaded.patients == list(made.take(order).patients)


def test_the_manifest_says_what_each_slice_has(tmp_path: Path) -> None:
    picture_folder(tmp_path / "full", [0, 1, 3], names=("a.png", "b.png"))
    picture_folder(tmp_path / "part", [0, 1, 2], names=("c.png",))
    made = picture_folder(tmp_path / "none", [0], names=("d.png",))
    (made / "masks" / "d.png").unlink()
    dataset = do(
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


def test_volumes_give_a_row_a_slice(tmp_path: Path) -> None:
    dataset = do(volume_folder(tmp_path / "in", 2), out=tmp_path / "out")
    table = dataset.manifest
    assert len(table) == 8
    assert table["slice"][1] == "000.npy/0001"
    assert table["index"].tolist() == [0, 1, 2, 3] * 2
    assert table["hounsfield"].all()
    assert set(dataset.patients) == {"000", "001"}
    assert sorted(set(table["shard"])) == [0, 1]


def test_a_mask_with_a_strange_value_is_named(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "in", [0, 1, 7])
    with pytest.raises(ValueError, match=r"masks/a\.png: the mask holds \[7\].*FOLDER@RULE"):
        do(folder, out=tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_scan_without_lung_is_named(tmp_path: Path) -> None:
    (tmp_path / "in" / "images").mkdir(parents=True)
    block = np.full((2, 64, 64), -1000.0)
    block[:, 20:40, 20:40] = 40
    np.save(tmp_path / "in" / "images" / "a.npy", block)
    (tmp_path / "in" / "index.csv").write_text("file,patient\na.npy,p\n")
    with pytest.raises(ValueError, match=r"a\.npy: no slice has a lung field.*--lungs none"):
        do(tmp_path / "in", out=tmp_path / "out", preprocessing=Preprocessing(size=32))


def test_two_scans_of_one_name_are_refused(tmp_path: Path) -> None:
    one, other = (picture_folder(tmp_path / name, [0, 1]) for name in ("one", "other"))
    with pytest.raises(ValueError, match=r"other/images/a\.png: .*same name 'a\.png' as .*one"):
        find_jobs([str(one), str(other)])


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x: no such folder .*infection"):
        find_jobs([str(tmp_path / "x")])
    with pytest.raises(FileNotFoundError, match="x@nonsense: no such folder"):
        find_jobs([str(tmp_path / "x@nonsense")])
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: is no folder"):
        find_jobs([str(tmp_path / "scan.nii.gz")])


# --- Stopped, killed, spread ----------------------------------------------------------------------


def test_bad_scans_stop_or_are_listed(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "in", [0, 1], names=("a.png", "b.png", "c.png"))
    good = (folder / "images" / "b.png").read_bytes()
    (folder / "images" / "b.png").write_bytes(good[:40])
    with pytest.raises(ValueError, match=r"b\.png"):
        do(folder, out=tmp_path / "strict")
    dataset = do(folder, out=tmp_path / "lenient", skip_bad=True)
    assert dataset.names == ["a.png", "c.png"]
    skipped = pd.read_csv(tmp_path / "lenient" / "skipped.csv")
    assert skipped["scan"].tolist() == ["b.png"]
    assert "b.png" in skipped["reason"][0]
    # Mended, the strict preparation goes on where it stopped.
    (folder / "images" / "b.png").write_bytes(good)
    assert do(folder, out=tmp_path / "strict").names == ["a.png", "b.png", "c.png"]


def test_a_strict_preparation_goes_on_leniently(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "in", [0, 1], names=("a.png", "b.png"))
    (folder / "images" / "b.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"b\.png"):
        do(folder, out=tmp_path / "out")
    assert do(folder, out=tmp_path / "out", skip_bad=True).names == ["a.png"]


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "in", [7])
    with pytest.raises(ValueError, match=r"no slice is left, see .*skipped\.csv"):
        do(folder, out=tmp_path / "out", skip_bad=True)


def test_a_finished_dataset_is_not_overwritten(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "in", [0, 1])
    do(folder, out=tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(FileExistsError, match="choose another --out"):
        do(folder, out=tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_a_stopped_preparation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = volume_folder(tmp_path / "in", 3)
    do(folder, out=tmp_path / "whole")
    calls = []

    def stop_at_second(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    original = preparing.prepare_scan
    monkeypatch.setattr(preparing, "prepare_scan", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        do(folder, out=tmp_path / "out")
    with pytest.raises(ValueError, match="the start of a dataset whose preprocessing differ"):
        do(folder, out=tmp_path / "out", preprocessing=Preprocessing(size=64, lungs="none"))
    do(folder, out=tmp_path / "out")
    assert len(calls) == 4, "the first scan is not prepared again"
    assert content(tmp_path / "out") == content(tmp_path / "whole")


SCANS = 150


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    """`stitchnet prepare` with two workers, in a group of processes of its own."""
    stitchnet = Path(sys.executable).with_name("stitchnet")
    options = ["--size", "32", "--lungs", "none", "--workers", "2", "--no-progress"]
    return subprocess.Popen(
        [stitchnet, "prepare", folder, "--out", out, *options], start_new_session=True
    )


def shards(out: Path) -> int:
    return len(list((out / "shards").glob("[0-9]*")))


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The worker processes below a running command."""
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # it may end while it is asked
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["a worker", "everything"])
def test_killed_halfway_the_bytes_are_the_same(tmp_path: Path, victim: str) -> None:
    """Two workers, kill -9; then the same command again where all were killed."""
    folder = volume_folder(tmp_path / "in", SCANS)
    do(folder, out=tmp_path / "whole")
    out = tmp_path / "out"
    process = start(folder, out)
    while len(workers := workers_of(process)) < 2 or shards(out) < 3:
        assert process.poll() is None, "it ended before it was killed"
    if victim == "a worker":
        workers[0].kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    assert shards(out) < SCANS, "killed too late to test anything"
    process.communicate(timeout=300)
    if victim == "everything":
        with pytest.raises(FileNotFoundError, match="interrupted"):
            Dataset(out)
        process = start(folder, out)
        process.communicate(timeout=300)
    assert process.returncode == 0
    assert content(out) == content(tmp_path / "whole")
