"""The command line from folders to results, and what it says of bad input."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pyro_stitchnet import cli
from pyro_stitchnet.training import checkpoint


def stitchnet(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["stitchnet", *map(str, arguments)])
    cli.main()


TINY = ["--preset", "tiny", "--steps", 2, "--labelled-per-batch", 2]
TINY += ["--unlabelled-per-batch", 2, "--log-every", 1, "--validate-every", 2, "--no-progress"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of phantoms, labelled, unlabelled and partly labelled, and a dataset of the three."""
    root = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patch:
        for first, name, patients in ((0, "labelled", 6), (6, "unlabelled", 3), (9, "partial", 2)):
            masks = "--no-masks" if name == "unlabelled" else "--masks"
            stitchnet(patch, "phantom", "--out", root / name, "--patients", patients, "--slices",
                      1, "--size", 64, "--first", first, masks)  # fmt: skip
        for mask in (root / "partial" / "masks").iterdir():
            Image.open(mask).point(lambda v: min(v, 2)).save(mask)
        stitchnet(patch, "prepare", root / "labelled", root / "unlabelled",
                  f"{root / 'partial'}@infection", "--out", root / "dataset", "--size", 64,
                  "--lungs", "none", "--workers", 1, "--no-progress")  # fmt: skip
    return root


@pytest.fixture(scope="module")
def trained(folders: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        stitchnet(patch, "train", folders / "dataset", "--out", folders / "run", *TINY)
    return folders / "run"


def test_train_leaves_everything(trained: Path) -> None:
    for name in ("model.pt", "log.csv", "curves.png", "run.json", "test/scores.csv",
                 "test/table.csv", "test/table.json", "test/table.md", "test/segmentations.png",
                 "test/styles.png"):  # fmt: skip
        assert (trained / name).stat().st_size > 0
    record = json.loads((trained / "run.json").read_text())
    parts = [set(record["patients"][p]) for p in ("labelled", "unlabelled", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 11
    assert record["slices"] == {"labelled": 5, "unlabelled": 3, "validation": 1, "test": 2}
    split = pd.read_csv(trained / "split.csv").set_index("patient")["part"]
    assert set(split.index[split == "test"]) == parts[3]
    assert record["config"]["seed"] == 0
    assert record["torch"]


def test_evaluate_repeats_the_run_s_own_table(
    trained: Path,
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stitchnet(monkeypatch, "evaluate", trained / "model.pt", folders / "dataset", "--out",
              folders / "again", "--patients", "test")  # fmt: skip
    assert "Overall" in capsys.readouterr().out
    stitchnet(monkeypatch, "evaluate", trained / "model.pt", folders / "dataset", "--out",
              folders / "all")  # fmt: skip
    assert "of patients that training or model selection saw" in capsys.readouterr().err
    again, before = (pd.read_csv(p / "scores.csv") for p in (folders / "again", trained / "test"))
    pd.testing.assert_frame_equal(again, before)


def test_a_budget_of_labels_leaves_the_rest_unlabelled(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stitchnet(monkeypatch, "train", folders / "dataset", "--out", folders / "budget", "--labels",
              2, *TINY)  # fmt: skip
    _, info = checkpoint.load(folders / "budget" / "model.pt")
    assert info["slices"] == {"labelled": 2, "unlabelled": 6, "validation": 1, "test": 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "nowhere", "--out", "out"], ["nowhere: no prepared dataset", "prepare"]),
        (["prepare", "nowhere", "--out", "out"], ["nowhere: no such folder"]),
        (["evaluate", "none.pt", "nowhere", "--out", "out"], ["none.pt", "stitchnet train"]),
        (["phantom", "--out", "out", "--size", "100"], ["multiple of 32"]),
        (["train", "[x]", "--out", "out"], ["[x]: no prepared"]),
        (["train", "x", "--out", "out", "--log-every", "0"], ["log_every"]),
        (
            ["train", "x", "--out", "out", "--preset", "tiny", "--weights", "w"],
            ["width", "article"],
        ),
        (["demo", "--out", "out", "--steps", "0"], ["steps must be at least 1"]),
    ],
)
def test_bad_input_is_one_line_naming_file_and_remedy(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        stitchnet(monkeypatch, *arguments)
    assert stop.value.code == 1
    said = "".join(capsys.readouterr().err.split("\n"))
    assert all(word in said for word in words)
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_overwritten(
    trained: Path, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (trained / "model.pt").read_bytes()
    with pytest.raises(SystemExit):
        stitchnet(monkeypatch, "train", folders / "dataset", "--out", trained, *TINY)
    assert (trained / "model.pt").read_bytes() == before


def test_demo_in_miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZE": 64, "LABELLED": (6, 1), "UNLABELLED": (2, 2)}.items():
        monkeypatch.setattr(f"pyro_stitchnet.demo.{name}", value)
    stitchnet(monkeypatch, "demo", "--out", tmp_path / "demo", "--steps", 1)
    assert (tmp_path / "demo" / "run" / "test" / "styles.png").exists()
    with pytest.raises(SystemExit):
        stitchnet(monkeypatch, "demo", "--out", tmp_path / "demo")
