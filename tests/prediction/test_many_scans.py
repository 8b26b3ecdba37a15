"""Many scans: good and bad ones, interrupted and resumed runs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.prediction import one_scan
from pyro_stitchnet.prediction.many_scans import predict_scans
from pyro_stitchnet.prediction.one_scan import ModelSource
from pyro_stitchnet.runtime.checksums import read_json, sha256
from pyro_stitchnet.training import checkpoint

PATIENT = {
    "PatientName": "DOE^JOHN",
    "PatientID": "PID998877",
    "PatientBirthDate": "19500101",
    "AccessionNumber": "ACC5544",
    "FrameOfReferenceUID": "1.2.9",
    "PixelSpacing": [4.5, 4.5],
}
Write = Callable[..., Path]


@pytest.fixture
def mixed(
    phantom_scan: tuple[np.ndarray, ...], write_scan: Write, write_series: Write, tmp_path: Path
) -> Path:
    """Nested folders of good scans and one scan with each kind of fault."""
    root = tmp_path / "in"
    write_scan(root / "good.nii.gz")
    stored = (phantom_scan[0].T.astype(int) + 1024).clip(0).astype(np.uint16)
    names = [f"{k:02}" for k in range(len(stored))]
    folder, step = root / "DOE_JOHN", (0, 0, 20.0)
    for uid, name in (("1.2.4", "chest"), ("1.2.5", "gap")):
        write_series(folder / name, stored, step, names, **PATIENT, SeriesInstanceUID=uid)
    uneven = stored[[0, 1, 4]]
    write_series(folder / "doe", uneven, step, "abc", **PATIENT, SeriesInstanceUID="1.2.6")
    gap = folder / "gap"
    (gap / "04.dcm").unlink()
    (root / "cut.nii.gz").write_bytes((root / "good.nii.gz").read_bytes()[:5000])
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8, 2), np.int16), np.eye(4)), root / "time.nii")
    nib.save(nib.Nifti1Image(np.full((8, 8, 8), -1000, np.int16), np.eye(4)), root / "flat.nii")
    abdomen = np.random.default_rng(0).normal(40, 20, (40, 40, 6)).astype(np.int16)
    abdomen[:3] = -1000  # air beside the patient
    nib.save(nib.Nifti1Image(abdomen, np.diag([5.0, 5, 5, 1])), root / "abdomen.nii")
    return root


def result(out: Path, name: str) -> Path:
    """The folder of the results of a scan, by the name of its file or folder."""
    scans = json.loads(out.with_name(f"{out.name}.sources.json").read_text())["scans"]
    (found,) = (scan for scan, one in scans.items() if Path(one["source"]).name == name)
    return out / found


def test_bad_scans_do_not_stop_the_others(mixed: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = predict_scans([mixed], ModelSource(model), out, workers=0, progress=False)
    failed = pd.read_csv(out / "failed.csv")
    assert summary.segmented == 4, summary.failed.to_dict("records")
    assert summary.finished_before == 0
    assert len(summary.failed) == len(failed) == 4
    assert list(failed["scan"]) == list(summary.failed["scan"])
    by_name = dict(
        zip(map(os.path.basename, summary.failed["source"]), failed["reason"], strict=True)
    )
    assert "unreadable" in by_name["cut.nii.gz"]
    assert "one channel and one time point" in by_name["time.nii"]
    assert "all its voxels" in by_name["flat.nii"]
    assert "slices are missing" in by_name["gap"]
    table = pd.read_csv(out / "scans.csv").set_index("scan")
    good, abdomen = result(out, "good.nii.gz"), result(out, "abdomen.nii")
    assert {good.name, abdomen.name, result(out, "chest").name} < set(table.index)
    assert len(table) == 4
    report = read_json(good / "report.json")
    assert table.loc[good.name, "volumes_ml_lung"] == report["volumes_ml"]["lung"]
    assert table.loc[good.name, "left_percent_of_lung_ggo"] == pytest.approx(
        report["sides"]["left"]["percent_of_lung"]["ggo"]
    )
    assert "research use only" in report["disclaimer"]
    assert set(report["files"]) == {"labels", "lesion_probability", "uncertainty"}
    assert {*report["files"].values(), "slices.csv"} == set(report["checksums"])
    for file, checksum in report["checksums"].items():
        assert sha256(good / file) == checksum
    # A scan without lungs is background, with a warning.
    report = read_json(abdomen / "report.json")
    assert report["volumes_ml"]["lung"] == 0
    assert any("No slice has a lung field" in text for text in report["warnings"])
    assert (result(out, "chest") / "segmentation.dcm").is_file()
    assert not list(out.glob(".*.tmp"))


def test_maps_agree_with_each_other_and_the_report(
    phantom_scan: tuple[np.ndarray, ...], write_scan: Write, model: Path, tmp_path: Path
) -> None:
    scan = write_scan(tmp_path / "a.nii.gz")
    out = tmp_path / "out"
    predict_scans(
        [scan], ModelSource(model), out, extras=("scan", "healthy"), workers=0, progress=False
    )
    read = {
        path.name[: -len(".nii.gz")]: np.asarray(nib.Nifti1Image.from_filename(path).dataobj)
        for path in (out / "scan-0001").glob("*.nii.gz")
    }
    assert set(read) == {"labels", "lesion_probability", "uncertainty", "scan", "healthy"}
    labels, uncertainty = read["labels"], read["uncertainty"]
    assert {array.shape for array in read.values()} == {phantom_scan[0].shape}
    assert 0 < uncertainty.max() <= np.log(4) + 1e-6
    assert (uncertainty[read["lesion_probability"] == 0] < 0.8).all()  # of two labels
    assert (labels > 0).any()
    lesion = labels >= 2
    assert np.array_equal(read["healthy"][~lesion], read["scan"][~lesion])
    assert np.array_equal(read["scan"], phantom_scan[0].clip(-1250, 250))
    report = read_json(out / "scan-0001" / "report.json")
    assert report["volumes_ml"]["infection"] == pytest.approx(lesion.sum() * 4.5**2 * 20 / 1000)
    assert report["mean_hu"]["ggo"] == pytest.approx(phantom_scan[0][labels == 2].mean(), abs=0.1)


def test_the_command_exits_with_1_after_a_failure(
    stitchnet: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    write_scan: Write,
    model: Path,
    tmp_path: Path,
) -> None:
    def predict(*inputs: Path) -> None:
        out = tmp_path / "in" / "out"
        stitchnet("predict", *inputs, "--model", model, "--out", out, "--no-progress")

    write_scan(tmp_path / "in" / "a.nii.gz")
    predict(tmp_path / "in")
    assert "scans segmented: 1, finished before: 0" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        predict(
            tmp_path / "in", tmp_path / "missing"
        )  # results inside the input folder are not scans
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert "scans segmented: 0, finished before: 1" in printed.out
    assert "scans that failed: 1" in printed.err
    assert "research use only" in printed.out


def test_the_command_takes_the_options_without_a_prefix(
    stitchnet: Callable[..., None], write_scan: Write, model: Path, tmp_path: Path
) -> None:
    scan, out = write_scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    stitchnet("predict", scan, "--model", model, "--out", out, "--views", 2, "--decision", "dice",
              "--least-patch", 3, "--workers", 0, "--no-progress")  # fmt: skip
    report = read_json(out / "scan-0001" / "report.json")
    expected = ReadOutOptions(views=2, decision="dice", least_patch=3)
    assert report["options"] == asdict(expected)


def test_finished_scans_are_kept_and_new_ones_added(
    write_scan: Write, model: Path, tmp_path: Path
) -> None:
    out, first = tmp_path / "out", write_scan(tmp_path / "x" / "a.nii.gz")
    predict_scans([first], ModelSource(model), out, workers=0, progress=False)
    before = {path: path.stat().st_mtime_ns for path in (out / "scan-0001").iterdir()}
    second = write_scan(tmp_path / "y" / "a.nii.gz")  # another scan of the same name
    summary = predict_scans([second, first], ModelSource(model), out, workers=0, progress=False)
    assert (summary.segmented, summary.finished_before) == (1, 1)
    assert before == {path: path.stat().st_mtime_ns for path in (out / "scan-0001").iterdir()}
    assert len(pd.read_csv(out / "scans.csv")) == 2


def test_results_do_not_depend_on_order_or_workers(
    write_scan: Write, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each of two workers has one thread.
    monkeypatch.setattr("pyro_stitchnet.prediction.many_scans.usable_cores", lambda: 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in "ab":
        write_scan(tmp_path / "in" / f"{name}.nii.gz")
    outs = [tmp_path / f"by_{workers}" for workers in (0, 2)]
    for workers, out in zip((0, 2), outs, strict=True):
        predict_scans([tmp_path / "in"], ModelSource(model), out, workers=workers, progress=False)
    torch.set_num_threads(threads)
    written = [
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*.nii.gz")} for out in outs
    ]
    assert len(written[0]) == 6
    assert written[0] == written[1]


def test_results_with_other_options_are_refused(
    write_scan: Write, model: Path, tmp_path: Path
) -> None:
    out, scan = tmp_path / "out", write_scan(tmp_path / "a.nii.gz")
    predict_scans([scan], ModelSource(model), out, workers=0, progress=False)
    with pytest.raises(
        ValueError, match=r"of other options \(options\.views was 1 and is 2\); .*another --out"
    ):
        predict_scans(
            [scan], ModelSource(model, options=ReadOutOptions(views=2)), out, progress=False
        )


def test_without_a_seg_the_other_results_are_written(
    monkeypatch: pytest.MonkeyPatch, mixed: Path, model: Path, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise ValueError("no, DOE^JOHN")

    monkeypatch.setattr("pyro_stitchnet.prediction.dicom_seg.write_seg", refuse)
    inputs = [mixed / "DOE_JOHN" / "chest"]
    assert (
        predict_scans(
            inputs, ModelSource(model), tmp_path / "out", workers=0, progress=False
        ).segmented
        == 1
    )
    report = read_json(tmp_path / "out" / "scan-0001" / "report.json")
    assert report["warnings"][-1] == "No DICOM SEG: highdicom rejects the series (no, [removed])."
    assert "segmentation" not in report["files"]


def test_results_of_another_checkpoint_at_the_same_path_are_refused(
    write_scan: Write, model: Path, net: StitchNet, tmp_path: Path
) -> None:
    path, scan = tmp_path / "model.pt", write_scan(tmp_path / "a.nii.gz")
    path.write_bytes(model.read_bytes())
    predict_scans([scan], ModelSource(path), tmp_path / "out", workers=0, progress=False)
    steps = {"size": 64, "lungs": "classical"}
    checkpoint.save(net, path, dataset={"preprocessing": steps}, other="training")
    with pytest.raises(ValueError, match=r"of other options \(model was "):
        predict_scans([scan], ModelSource(path), tmp_path / "out", workers=0, progress=False)


def test_a_full_disk_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, write_scan: Write, model: Path, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(one_scan, "write_nifti", full)
    with pytest.raises(OSError, match="No space left") as caught:
        predict_scans(
            [write_scan(tmp_path / "a.nii.gz")], ModelSource(model), tmp_path / "out", workers=0,
            progress=False,
        )  # fmt: skip
    assert caught.value.filename == str(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*a*/*"))


def test_a_killed_run_is_resumed_without_repeating_scans(
    write_scan: Write, model: Path, tmp_path: Path
) -> None:
    for n in range(4):
        write_scan(tmp_path / "in" / f"{n}.nii.gz")
    out = tmp_path / "out"
    options = ["--workers", "1", "--no-progress", "--views", "4"]
    command = [sys.executable, "-m", "pyro_stitchnet", "predict", str(tmp_path / "in")]
    command += ["--model", str(model), "--out", str(out), *options]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300  # on a busy machine the imports alone take a minute
    while running.poll() is None and time.monotonic() < end:
        if list(out.glob("*/report.json")) and list(out.glob(".*.tmp/*")):
            break
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*/report.json")}
    assert 0 < len(finished) < 4
    assert list(out.glob(".*.tmp"))
    source = ModelSource(model, options=ReadOutOptions(views=4))
    summary = predict_scans(
        [tmp_path / "in"], source, out, extras=("scan",), workers=0, progress=False
    )
    assert (summary.segmented, summary.finished_before) == (4 - len(finished), len(finished))
    assert list(pd.read_csv(out / "scans.csv")["scan"]) == [f"scan-000{n}" for n in range(1, 5)]
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    assert not list(out.glob(".*.tmp"))
