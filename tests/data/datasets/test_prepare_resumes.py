"""A preparation that was stopped, killed or out of disk space resumes to the same bytes."""

import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from pyro_stitchnet.data.datasets import prepare_scan as _scan
from pyro_stitchnet.data.datasets.dataset import ROWS, SKIPPED, Dataset
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.runtime.checksums import read_json
from pyro_stitchnet.runtime.locks import LOCK, only_run


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset, without the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK
    }


def test_a_stopped_preparation_resumes(
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = volume_folder(tmp_path / "in", 3)
    prepared(folder, out=tmp_path / "whole")
    calls = []

    def stop_at_second(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    original = _scan.prepare_scan
    monkeypatch.setattr(_scan, "prepare_scan", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        prepared(folder, out=tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"the start of another dataset \(preprocessing.size was 32 and is 64\)"
    ):
        prepared(folder, out=tmp_path / "out", preprocessing=Preprocessing(size=64, lungs="none"))
    prepared(folder, out=tmp_path / "out")
    assert len(calls) == 4, "the first scan is not prepared again"
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_scans_whose_files_changed_are_prepared_again(
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a bad mask the user corrects it and an earlier one, which may be an older file."""
    folder, out = volume_folder(tmp_path / "in", 4), tmp_path / "out"
    masks = [folder / "masks" / f"{i:03}.npy" for i in range(4)]
    good = [np.load(mask) for mask in masks]
    np.save(masks[0], np.ones_like(good[0]))
    np.save(masks[3], np.full_like(good[3], 9))
    with pytest.raises(ValueError, match="correct the mask"):
        prepared(folder, out=out)
    untouched = shards_of(out)
    assert sorted(untouched) == ["00000", "00001", "00002"]
    for i in (0, 3):
        np.save(masks[i], good[i])
        os.utime(masks[i], (0, 0))
    prepared(folder, out=out)
    assert content(out) == content(prepared(folder, out=tmp_path / "whole").folder)
    after = shards_of(out)
    assert after["00000"] != untouched.pop("00000")
    assert untouched.items() <= after.items()


def test_a_changed_file_of_detached_voxels_is_noticed(
    write_volume: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    """The second scan is damaged; when it is mended, the first has changed too."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in "ab":
        grey = draw.integers(-1000, 100, (40, 40, 2), np.int16)
        write_volume(folder / f"{name}.mhd", grey, np.eye(4))
    first, second = (folder / name for name in ("a.raw", "b.raw"))
    whole = second.read_bytes()
    second.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"b\.mhd"):
        prepared(folder, out=out)
    assert sorted(shards_of(out)) == ["00000"]
    second.write_bytes(whole)
    first.write_bytes(first.read_bytes()[::-1])
    os.utime(first, (0, 0))
    prepared(folder, out=out)
    assert content(out) == content(prepared(folder, out=tmp_path / "whole").folder)


def shards_of(out: Path) -> dict[str, int]:
    """When each finished shard was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in (out / "shards").glob("[0-9]*")}


def test_a_finished_dataset_is_not_overwritten(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = image_folder(tmp_path / "in", [0, 1])
    prepared(folder, out=tmp_path / "out")
    before = content(tmp_path / "out")
    with pytest.raises(FileExistsError, match="choose another --out"):
        prepared(folder, out=tmp_path / "out")
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["dataset.json", ROWS, SKIPPED, "shards", "shards/00000"])
def test_a_damaged_dataset_is_repaired_as_its_error_says(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path, name: str
) -> None:
    folder, out = image_folder(tmp_path / "in", [0, 1]), tmp_path / "out"
    prepared(folder, out=out)
    whole = content(out)
    path = out / name
    if name == "dataset.json":
        path.write_bytes(path.read_bytes()[:50])
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises((ValueError, OSError), match=r"remove .*(dataset\.json|it), and "):
        Dataset(out)
    (out / "dataset.json").unlink()
    prepared(folder, out=out)
    assert content(out) == whole


def test_a_damaged_plan_is_named(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = image_folder(tmp_path / "in", [0, 1])
    out = tmp_path / "out"
    out.mkdir()
    (out / "plan.json").write_text('{"size": 3}')
    with pytest.raises(ValueError, match=r"plan\.json: damaged.*remove it, and run the command"):
        prepared(folder, out=out)
    (out / "plan.json").unlink()
    assert len(prepared(folder, out=out)) == 1


def test_shards_of_another_preparation_are_not_taken_over(
    volume_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    """The remedy for a damaged shard is to remove it and dataset.json."""
    out = tmp_path / "out"
    whole = content(prepared(volume_folder(tmp_path / "in", 3), out=out).folder)
    (out / "dataset.json").unlink()
    shutil.rmtree(out / "shards" / "00001")
    with pytest.raises(ValueError, match="00000: belongs to another dataset"):
        prepared(volume_folder(tmp_path / "other", 3), out=out)
    (out / "plan.json").unlink()
    assert content(prepared(tmp_path / "in", out=out).folder) == whole


def test_two_runs_in_one_folder_are_refused(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder, out = image_folder(tmp_path / "in", [0, 1]), tmp_path / "out"
    with only_run(out), pytest.raises(BlockingIOError, match="out: another run is writing here"):
        prepared(folder, out=out)
    assert len(prepared(folder, out=out)) == 1


@pytest.mark.parametrize("gone", ["a shard", "everything"])
def test_a_dataset_that_loses_files_meanwhile_is_not_finished(
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gone: str,
) -> None:
    folder, out = volume_folder(tmp_path / "in", 4), tmp_path / "out"
    whole = content(prepared(folder, out=tmp_path / "whole").folder)
    calls = []

    def remove_at_third(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            shutil.rmtree(out / "shards" / "00000" if gone == "a shard" else out)
            (out / "shards").mkdir(parents=True, exist_ok=True)  # as a worker makes it again
        return original(*arguments)  # type: ignore[arg-type]

    original = _scan.prepare_scan
    monkeypatch.setattr(_scan, "prepare_scan", remove_at_third)
    expected = r"out: .*removed while this ran.*; run the same command"
    with pytest.raises((ValueError, FileNotFoundError), match=expected):
        prepared(folder, out=out)
    assert not (out / "dataset.json").exists()
    assert content(prepared(folder, out=out).folder) == whole


def test_the_checksums_of_a_dataset_are_those_of_its_tables(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    prepared(image_folder(tmp_path / "in", [0, 1]), out=tmp_path / "out")
    noted = read_json(tmp_path / "out" / "dataset.json")["checksums"]
    for name in ("manifest.csv", "skipped.csv"):
        data = (tmp_path / "out" / name).read_bytes()
        assert noted[name] == hashlib.sha256(data).hexdigest()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Make the system refuse larger files, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stage", ["plan", "shard", "end"])
def test_a_failed_write_leaves_no_partial_file_and_the_next_call_resumes(
    image_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    stage: str,
) -> None:
    names = tuple(f"{i:02}.png" for i in range(90))  # two shards
    folder = image_folder(tmp_path / "in", [0, 1], names=names)
    whole = content(prepared(folder, out=tmp_path / "whole").folder)
    out = tmp_path / "out"
    largest = max(len(data) for name, data in whole.items() if name.startswith("shards"))
    room = {"plan": 10, "shard": largest - 1, "end": len(whole["manifest.csv"]) - 1}
    assert room["shard"] < room["end"], "no shard may fail in the last stage"
    with files_of_at_most(room[stage]), pytest.raises(OSError, match=str(out)) as caught:
        prepared(folder, out=out)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(FileNotFoundError, match="prepare"):
        Dataset(out)
    left = {name: data for name, data in content(out).items() if name != "plan.json"}
    assert left.items() <= whole.items()
    assert content(prepared(folder, out=out).folder) == whole


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_full_disk_is_no_bad_scan(
    write_volume: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    skip_bad: bool,
) -> None:
    """Slices that are streamed to disk do not fit there."""
    hu = np.random.default_rng(0).integers(-1000, 400, (64, 64, 9)).astype(np.int16)
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "a.nii.gz", hu, np.eye(4))
    out = tmp_path / "out"
    with files_of_at_most(hu.size), pytest.raises(OSError, match=str(out)) as caught:
        prepared(tmp_path / "in", out=out, skip_bad=skip_bad)
    assert caught.value.errno == errno.EFBIG
    assert not list((out / "shards").iterdir())
    assert len(prepared(tmp_path / "in", out=out, skip_bad=skip_bad)) == 9


SCANS = 150


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    """Start `stitchnet prepare` with two workers, in its own process group."""
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
    """Return the worker processes of a running command: children of the server of its forks."""
    workers = []
    with suppress(psutil.Error):  # they may end meanwhile
        for child in psutil.Process(process.pid).children():
            workers += [one for one in child.children() if "forkserver" in " ".join(one.cmdline())]
    return workers


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["a worker", "everything"])
def test_after_a_kill_the_bytes_are_the_same(
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    victim: str,
) -> None:
    """Two workers; where all are killed, the same command runs again."""
    folder = volume_folder(tmp_path / "in", SCANS)
    prepared(folder, out=tmp_path / "whole")
    out = tmp_path / "out"
    process = start(folder, out)
    while len(workers := workers_of(process)) < 2 or shards(out) < 3:
        assert process.poll() is None, "it ended before the kill"
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
def test_after_ctrl_c_one_line_names_the_remedy_and_it_works(
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    moment: str,
) -> None:
    """Ctrl-C is sent twice, since workers take a while to end."""
    folder = volume_folder(tmp_path / "in", SCANS // 3)
    prepared(folder, out=tmp_path / "whole")
    out = tmp_path / "out"
    process = start(folder, out)
    while len(workers_of(process)) < 2 or (moment == "at work" and shards(out) < 3):
        assert process.poll() is None, "it ended before the interrupt"
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert errors.decode().startswith("interrupted; ")
    assert "`prepare`" in errors.decode()
    assert process.returncode == 130
    assert shards(out) < SCANS // 3, "stopped too late to test anything"
    process = start(folder, out)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert content(out) == content(tmp_path / "whole")
