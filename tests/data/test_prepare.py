"""Preparing: what a mask's values become, and that stopping, killing and workers change nothing."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image

from pyro_stitchnet.data import _scan
from pyro_stitchnet.data.dataset import Dataset
from pyro_stitchnet.data.phantom import phantom_slices
from pyro_stitchnet.data.prepare import find_jobs, prepare
from pyro_stitchnet.data.preprocess import Preprocessing
from pyro_stitchnet.data.slices import allowed_sets, write_folder
from pyro_stitchnet.labels import ALL_LABELS, LABEL_RULES

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


def test_a_slice_that_is_labelled_in_part_counts_as_labelled(tmp_path: Path) -> None:
    for path in ("imagesTr/a_0000.png", "labelsTr/a.png"):
        (tmp_path / "in" / path).parent.mkdir(parents=True)
        Image.fromarray(np.eye(32, dtype=np.uint8)).save(tmp_path / "in" / path)
    about = {"channel_names": {"0": "CT"}, "file_ending": ".png"}
    labels = {"background": 0, "ignore": 1, "lung": 2}
    (tmp_path / "in" / "dataset.json").write_text(json.dumps({**about, "labels": labels}))
    row = do(tmp_path / "in", out=tmp_path / "out").manifest.iloc[0]
    assert row["label_sets"] == "0 0+1+2+3"
    assert row["labelled"]
    assert not row["complete"]


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


NO_LUNG = np.full((2, 64, 64), -1000.0)
NO_LUNG[:, 20:40, 20:40] = 40


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (NO_LUNG, "no slice of .* has a lung field.*--lungs none"),
        (np.full((2, 64, 64), -700.0), r"all its voxels are -700\.0; drop it"),
        (np.where(NO_LUNG == 40, np.nan, NO_LUNG), "not a number; set them to that of air"),
        (np.zeros((0, 64, 64)), "three axes, all longer than 0"),
        (np.array(["text"]), "unreadable .*; save an array of numbers"),
    ],
    ids=["no lung", "constant", "NaN", "empty", "text"],
)
def test_a_scan_that_cannot_be_used_is_named_with_a_remedy_or_skipped(
    tmp_path: Path, bad: np.ndarray, words: str
) -> None:
    folder = volume_folder(tmp_path / "in", 2)
    path = folder / "images" / "001.npy"
    np.save(path, bad)
    (folder / "masks" / "001.npy").unlink()
    steps = Preprocessing(size=32)
    with pytest.raises(ValueError, match=rf"^{path}: .*{words}"):
        do(folder, out=tmp_path / "strict", preprocessing=steps)
    dataset = do(folder, out=tmp_path / "lenient", preprocessing=steps, skip_bad=True)
    assert set(dataset.manifest["scan"]) == {"000.npy"}
    skipped = pd.read_csv(tmp_path / "lenient" / "skipped.csv")
    assert skipped["scan"].tolist() == ["001.npy"]
    assert skipped["reason"].str.fullmatch(rf"{path}: .*{words}.*").all()


def test_two_scans_of_one_name_are_refused(tmp_path: Path) -> None:
    one, other = (picture_folder(tmp_path / name, [0, 1]) for name in ("one", "other"))
    with pytest.raises(ValueError, match=r"other/images/a\.png: .*same name 'a\.png' as .*one"):
        find_jobs([str(one), str(other)])
    with pytest.raises(ValueError, match=r"one/images/a\.png: is given twice"):
        find_jobs([str(one), f"{one}@full"])


def test_two_slices_of_one_name_are_refused(tmp_path: Path) -> None:
    """Slice 3 of the scan ct_lesion_seg/12 and the scan ct_lesion_seg/12/0003."""
    for part, ending, white in (("image", "jpg", 255), ("mask", "png", 1)):
        place = tmp_path / "ccii" / "ct_lesion_seg" / part / "12"
        place.mkdir(parents=True)
        Image.fromarray(np.eye(32, dtype=np.uint8) * white).save(place / f"0003.{ending}")
    (tmp_path / "plain" / "ct_lesion_seg").mkdir(parents=True)
    voxels = np.arange(32 * 32 * 4, dtype=np.int16).reshape(32, 32, 4)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "plain" / "ct_lesion_seg" / "12.nii.gz")
    with pytest.raises(ValueError, match=r"out: two slices are called ct_lesion_seg/12/0003; ren"):
        do(tmp_path / "ccii", f"{tmp_path / 'plain'}@plain", out=tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_no_folder_and_no_scan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name at least one"):
        find_jobs([])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"no scan in the layout 'plain', which is <patient>\.nii"):
        find_jobs([f"{tmp_path}@plain"])


@pytest.mark.parametrize("workers", [0, -3])
def test_no_workers_are_refused(tmp_path: Path, workers: int) -> None:
    folder = picture_folder(tmp_path / "in", [0, 1])
    with pytest.raises(ValueError, match=f"workers must be at least 1, got {workers}"):
        do(folder, out=tmp_path / "out", workers=workers)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("how", "masks", "cautious"),
    [("", True, True), ("@folder", True, True), ("@full", True, False), ("", False, False)],
)
def test_a_rule_is_cautioned_of_only_where_it_was_assumed(
    tmp_path: Path, how: str, masks: bool, cautious: bool
) -> None:
    folder = picture_folder(tmp_path / "in", [0, 1])
    if not masks:
        (folder / "masks" / "a.png").unlink()
    dataset = do(f"{folder}{how}", out=tmp_path / "out")
    assert ("rule 'full'" in dataset.about["sources"]["folder"]["caution"]) == cautious


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

    original = _scan.prepare_scan
    monkeypatch.setattr(_scan, "prepare_scan", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        do(folder, out=tmp_path / "out")
    with pytest.raises(ValueError, match="the start of a dataset whose preprocessing differ"):
        do(folder, out=tmp_path / "out", preprocessing=Preprocessing(size=64, lungs="none"))
    do(folder, out=tmp_path / "out")
    assert len(calls) == 4, "the first scan is not prepared again"
    assert content(tmp_path / "out") == content(tmp_path / "whole")


# --- A full disk ----------------------------------------------------------------------------------


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to write larger files, as it refuses any on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stage", ["plan", "shard", "end"])
def test_where_writing_fails_nothing_half_written_stays_and_it_goes_on(
    tmp_path: Path, stage: str
) -> None:
    names = tuple(f"{i:02}.png" for i in range(90))  # two shards
    folder = picture_folder(tmp_path / "in", [0, 1], names=names)
    whole = content(do(folder, out=tmp_path / "whole").folder)
    out = tmp_path / "out"
    largest = max(len(data) for name, data in whole.items() if name.startswith("shards"))
    room = {"plan": 10, "shard": largest - 1, "end": len(whole["manifest.csv"]) - 1}
    assert room["shard"] < room["end"], "no shard is to be refused at the end"
    with files_of_at_most(room[stage]), pytest.raises(OSError, match=str(out)) as caught:
        do(folder, out=out)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(FileNotFoundError, match="prepare"):
        Dataset(out)
    left = {name: data for name, data in content(out).items() if name != "plan.json"}
    assert left.items() <= whole.items()
    assert content(do(folder, out=out).folder) == whole


# --- Stopped and killed for real ------------------------------------------------------------------

SCANS = 150


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    """`stitchnet prepare` with two workers, in a group of processes of its own."""
    stitchnet = Path(sys.executable).with_name("stitchnet")
    options = ["--size", "32", "--lungs", "none", "--workers", "2", "--no-progress"]
    return subprocess.Popen(
        [stitchnet, "prepare", folder, "--out", out, *options],
        start_new_session=True,
        stderr=subprocess.PIPE,
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


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["as workers start", "at work"])
def test_after_ctrl_c_one_line_says_how_to_go_on_and_it_does(tmp_path: Path, moment: str) -> None:
    """Pressed twice, since the workers take a while to end."""
    folder = volume_folder(tmp_path / "in", SCANS // 3)
    do(folder, out=tmp_path / "whole")
    out = tmp_path / "out"
    process = start(folder, out)
    while len(workers_of(process)) < 2 or (moment == "at work" and shards(out) < 3):
        assert process.poll() is None, "it ended before it was stopped"
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert said.decode() == "stopped; `prepare` goes on when run again\n"
    assert process.returncode == 130
    assert shards(out) < SCANS // 3, "stopped too late to test anything"
    process = start(folder, out)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert content(out) == content(tmp_path / "whole")
