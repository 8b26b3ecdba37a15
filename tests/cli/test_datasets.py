"""The commands on datasets: `prepare`, `inspect` and what `evaluate` makes of a rule."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint

WHOLE: list[object] = ["--size", 64, "--lungs", "none", "--workers", 1, "--no-progress"]


@pytest.fixture(scope="module")
def infection(stitchnet: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slices prepared `@infection`; the mask of the first holds no infection."""
    root = tmp_path_factory.mktemp("infection")
    slices = phantom_slices(4, 1, size=64)
    slices.label_sets[:] = torch.where(slices.label_sets >= 4, 4, slices.label_sets)
    slices.label_sets[0].clamp_(max=2)
    write_folder(slices, root / "ct")
    stitchnet("prepare", f"{root / 'ct'}@infection", "--out", root / "data", *WHOLE)
    return root / "data"


def test_all_slices_with_masks_of_infection_are_scored(
    stitchnet: Callable[..., None],
    infection: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    checkpoint.save(StitchNet(preset("tiny").model), tmp_path / "model.pt")
    assert not Dataset(infection).manifest["complete"].any()
    capsys.readouterr()
    stitchnet("evaluate", tmp_path / "model.pt", infection, "--out", tmp_path / "out")
    assert "scored: 4 of 4 slices\n" in capsys.readouterr().out
    assert "Scored: 4 of 4 slices." in (tmp_path / "out" / "table.md").read_text()
    info = json.loads((tmp_path / "out" / "table.json").read_text())["info"]
    assert (info["coverage"]["scored"], info["coverage"]["of"]) == (4, 4)
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert scores["lesion"].tolist() == ["Infection"] * 4
    assert scores["truth_pixels"][0] == 0


def test_inspect_prints_tables_and_writes_where_it_is_told(
    stitchnet: Callable[..., None],
    infection: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    stitchnet("inspect", infection)
    piped = capsys.readouterr().out
    assert "| folder | 4 | 4 | 4 | 4 | 0 | 4 |" in piped
    assert "Pixels of 4 of 4 slices" in piped
    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        stitchnet("inspect", infection)
    assert "|" not in capsys.readouterr().out
    stitchnet("inspect", infection, "--out", "look")
    assert capsys.readouterr().out.startswith(piped)
    written = {path.name for path in (tmp_path / "look").iterdir()} - {".lock"}
    assert written == {"contact_sheet.png", "histogram.csv", "inspection.md"}


@pytest.mark.parametrize("option", ["--most", "--sheet"])
@pytest.mark.parametrize("value", [0, -1, 10**12])
def test_numbers_out_of_range_are_refused(
    refused: Callable[..., str], infection: Path, option: str, value: int
) -> None:
    assert f"{option} must be at " in refused("inspect", infection, option, value)


def test_one_bad_scan_of_any_kind_costs_itself_only(
    stitchnet: Callable[..., None],
    refused: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = tmp_path / "ct", tmp_path / "data"
    (folder / "results").mkdir(parents=True)
    hu = np.random.default_rng(0).integers(-1000, 400, (64, 64, 3)).astype(np.int16)
    for name, voxels in {
        "a": hu, "b": hu + np.int16(1), "labels": (hu > 0).astype(np.uint8),
        "results/labels": (hu > 0).astype(np.uint8),
    }.items():  # fmt: skip
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")
    (folder / "results" / "report.json").write_text("{}")
    (folder / "broken.nii.gz").symlink_to("nowhere")
    (folder / "scans.csv.nii.gz").write_bytes(b"no scan")
    assert "results: holds results of `stitchnet predict`" in refused(
        "prepare", folder, "--out", out, *WHOLE
    )
    stitchnet("prepare", folder, "--out", out, *WHOLE, "--skip-bad")
    assert "scans left out: 4" in capsys.readouterr().err
    dataset = Dataset(out)
    assert set(dataset.patients) == {"a", "b"}
    reasons = dict(zip(dataset.skipped["scan"], dataset.skipped["reason"], strict=True))
    assert set(reasons) == {"broken", "labels", "results", "scans.csv"}
    assert "labels.nii.gz: a label map, not a scan" in reasons["labels"]


@pytest.mark.parametrize("seconds", [0, -1, "nan", "inf"])
def test_a_time_limit_is_a_positive_number(
    refused: Callable[..., str], tmp_path: Path, seconds: object
) -> None:
    command = ["prepare", tmp_path, "--out", tmp_path / "data", *WHOLE]
    assert "--time-limit must be " in refused(*command, "--time-limit", seconds)


def test_a_window_without_hounsfield_units_is_noted(
    stitchnet: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(phantom_slices(1, 1, size=64), tmp_path / "ct")
    for number, (window, noted) in enumerate((((), False), (("--window", -1000, 400), True))):
        out = tmp_path / str(number)
        stitchnet("prepare", tmp_path / "ct", "--out", out, *window, *WHOLE)
        assert ("so --window has no effect" in capsys.readouterr().err) == noted


def test_training_without_labels_is_refused_before_it_writes(
    stitchnet: Callable[..., None], refused: Callable[..., str], tmp_path: Path
) -> None:
    write_folder(phantom_slices(2, 1, size=64), tmp_path / "ct", masks=False)
    stitchnet("prepare", tmp_path / "ct", "--out", tmp_path / "data", *WHOLE)
    command = ["train", tmp_path / "data", "--out", tmp_path / "run", "--folds", 0]
    assert "data: no slice for training has labels; prepare it with masks, or" in refused(*command)
    assert not (tmp_path / "run").exists()


def test_two_files_of_options_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("steps: 1\n")
    configs = ["--config", tmp_path / "a.yaml", f"--config={tmp_path / 'b.yaml'}"]
    assert "--config is given twice" in refused(
        "train", tmp_path, "--out", tmp_path / "o", *configs
    )


def test_more_phantoms_than_fit_into_memory_are_refused(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    said = refused("phantom", "--out", tmp_path / "out", "--patients", 10**7)
    assert "do not fit into memory" in said
    assert not (tmp_path / "out").exists()
