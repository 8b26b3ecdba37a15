"""Runs that meet damage, other runs, and processes that end: nothing wrong without a word."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pyro_stitchnet.prediction.many_scans import Summary, predict_scans
from pyro_stitchnet.prediction.one_scan import ModelSource
from pyro_stitchnet.runtime.locks import only_run

Write = Callable[..., Path]


@pytest.fixture
def run(write_scan: Write, model: Path, tmp_path: Path) -> Callable[..., Summary]:
    """``(**options)``: segment two scans, in this process."""
    for name in "ab":
        write_scan(tmp_path / "in" / f"{name}.nii.gz")

    def predict(**options: object) -> Summary:
        options = {"workers": 0, "progress": False, "extras": ("scan",), **options}
        return predict_scans([tmp_path / "in"], ModelSource(model), tmp_path / "out", **options)  # type: ignore[arg-type]

    return predict


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "file", ["report.json", "labels.nii.gz", "scan.nii.gz", "slices.csv", "missing"]
)
def test_damaged_results_are_listed_and_not_believed(
    run: Callable[..., Summary], tmp_path: Path, file: str
) -> None:
    run()
    folder = tmp_path / "out" / "scan-0002"
    file, whole = (file, False) if file != "missing" else ("uncertainty.nii.gz", True)
    (folder / file).unlink() if whole else damage(folder / file)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    summary = run()
    assert (summary.segmented, summary.finished_before) == (0, 1)
    failed = pd.read_csv(tmp_path / "out" / "failed.csv")
    assert list(failed["scan"]) == ["scan-0002"]
    assert failed["reason"][0].startswith(f"scan-0002/{file}: {'missing' if whole else 'damaged'}")
    assert str(tmp_path) not in failed["reason"][0]
    # What a user may have edited stays, until the user removes it.
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    assert run().segmented == 1
    assert (tmp_path / "out" / "scan-0002").is_dir()
    assert not len(pd.read_csv(tmp_path / "out" / "failed.csv"))


def test_a_scan_that_changed_after_its_result_is_listed(
    run: Callable[..., Summary], write_scan: Write, tmp_path: Path
) -> None:
    run()
    scan = tmp_path / "in" / "b.nii.gz"
    changed = scan.stat().st_mtime - 60
    os.utime(scan, (changed, changed))
    for _ in range(2):  # also the second time
        summary = run()
        assert (summary.segmented, summary.finished_before) == (0, 1)
        reason = summary.failed["reason"][0]
        assert reason.startswith(f"{scan}: changed after it was segmented")
        assert reason.endswith(f"remove {tmp_path / 'out' / 'scan-0002'}")
    shutil.rmtree(tmp_path / "out" / "scan-0002")
    assert run().segmented == 1
    assert run().finished_before == 2


def test_results_are_not_written_among_other_files(
    run: Callable[..., Summary], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.csv").touch()
    with pytest.raises(FileExistsError, match=r"out: holds other files \(manifest\.csv\)"):
        run()
    assert not (tmp_path / "out" / "predict.json").exists()


def test_damaged_records_of_the_run_are_refused(
    run: Callable[..., Summary], tmp_path: Path
) -> None:
    run()
    plan, sources = tmp_path / "out" / "predict.json", tmp_path / "out.sources.json"
    for path in (plan, sources):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"e", b"f", 1))
        with pytest.raises(ValueError, match=rf"{path.name}: damaged.*another --out"):
            run()
        path.write_bytes(content)
    sources.unlink()
    with pytest.raises(FileNotFoundError, match=r"out\.sources\.json: missing.*another --out"):
        run()


def test_a_second_run_is_refused(run: Callable[..., Summary], tmp_path: Path) -> None:
    with (
        only_run(tmp_path / "out"),
        pytest.raises(BlockingIOError, match="another run is writing here"),
    ):
        run()
    assert run().segmented == 2


def test_a_removed_folder_is_no_finished_run(
    run: Callable[..., Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removes(folder: Path) -> Callable[..., str]:
        def fingerprint(*_: object) -> str:
            shutil.rmtree(folder, ignore_errors=True)
            return "0" * 16

        return fingerprint

    target = "pyro_stitchnet.prediction.scan_report.fingerprint"
    monkeypatch.setattr(target, removes(tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match="out: was removed while"):
        run()
    monkeypatch.setattr(target, removes(tmp_path / "out" / "scan-0001"))
    with pytest.raises(FileNotFoundError, match=r"1 of 2 results were removed.* scan-0001"):
        run()


def test_a_scan_that_takes_too_long_or_ends_its_process_costs_only_itself(
    run: Callable[..., Summary], tmp_path: Path
) -> None:
    summary = run(workers=1, time_limit=0.05)
    assert summary.segmented == 0
    assert all("took longer than 0.05 s" in reason for reason in summary.failed["reason"])
    assert not list((tmp_path / "out").glob(".*.tmp"))
    assert run(workers=1).segmented == 2


def test_pipes_and_links_in_a_circle_cost_only_themselves(
    run: Callable[..., Summary], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "in" / "pipe.nii.gz")  # nothing is written to it
    (tmp_path / "in" / "self").symlink_to("self")
    summary = run()
    assert summary.segmented == 2
    assert sorted(summary.failed["reason"]) == [
        "a link to a missing file or folder; fetch it",
        "not a file",
    ]


def test_results_are_refused_as_scans(
    run: Callable[..., Summary], model: Path, tmp_path: Path
) -> None:
    run()
    inputs = []
    for name in ("labels", "scan", "lesion_probability"):
        inputs.append(tmp_path / "other" / f"{name}.nii.gz")
        inputs[-1].parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "out" / "scan-0001" / f"{name}.nii.gz", inputs[-1])
    summary = predict_scans(
        inputs, ModelSource(model), tmp_path / "again", workers=0, progress=False
    )
    assert summary.segmented == 0
    assert all("a map that `stitchnet predict` wrote" in one for one in summary.failed["reason"])


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("predict", ["--workers", "-1"]), ("predict", ["--time-limit", "0"]),
        ("predict", ["--time-limit", "nan"]), ("predict", ["--time-limit", "inf"]),
        ("predict", ["--size", "0"]), ("predict", ["--size", "3200000"]),
        ("rank", ["--count", "0"]), ("rank", ["--apart", "nan"]), ("rank", ["--per-scan", "0"]),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(
    refused: Callable[..., str], write_scan: Write, model: Path, tmp_path: Path, command: str,
    options: list[str],
) -> None:  # fmt: skip
    scan = write_scan(tmp_path / "a.nii.gz")
    more = ["--model", model] if command == "predict" else []
    said = refused(command, scan, *more, "--out", tmp_path / "out", *options)
    assert any(words in said for words in ("must be", "multiple of 32", "at most"))
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
