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


TINY = ["--preset", "tiny", "--size", 64, "--steps", 2, "--labelled-per-batch", 2]
TINY += ["--unlabelled-per-batch", 2, "--log-every", 1, "--validate-every", 2, "--no-progress"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patch:
        stitchnet(patch, "phantom", "--out", root / "labelled", "--patients", 6, "--slices", 1,
                  "--size", 64)  # fmt: skip
        stitchnet(patch, "phantom", "--out", root / "unlabelled", "--patients", 4, "--slices", 1,
                  "--size", 64, "--first", 4)  # fmt: skip
    return root


@pytest.fixture(scope="module")
def trained(folders: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        stitchnet(patch, "train", "--labelled", folders / "labelled", "--unlabelled",
                  folders / "unlabelled", "--out", folders / "run", *TINY)  # fmt: skip
    return folders / "run"


def test_train_leaves_everything(trained: Path) -> None:
    for name in ("model.pt", "log.csv", "curves.png", "run.json", "test/scores.csv",
                 "test/table.csv", "test/table.json", "test/table.md", "test/segmentations.png",
                 "test/styles.png"):  # fmt: skip
        assert (trained / name).stat().st_size > 0
    record = json.loads((trained / "run.json").read_text())
    parts = [set(record["patients"][p]) for p in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 6
    assert record["config"]["seed"] == 0
    assert record["torch"]
    # Patients 4 and 5 are in both folders: where they are held out, they are not trained on.
    held_out = parts[1] | parts[2]
    shared = {"phantom_0004", "phantom_0005"} & held_out
    assert record["slices"]["unlabelled"] == 4 - len(shared)
    assert shared  # or the line above tests nothing


def test_evaluate_repeats_the_run_s_own_table(
    trained: Path,
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stitchnet(monkeypatch, "evaluate", trained / "model.pt", folders / "labelled", "--out",
              folders / "again", "--patients", "test")  # fmt: skip
    assert "Overall" in capsys.readouterr().out
    stitchnet(monkeypatch, "evaluate", trained / "model.pt", folders / "labelled", "--out",
              folders / "all")  # fmt: skip
    assert "of patients that training or model selection saw" in capsys.readouterr().err
    again, before = (pd.read_csv(p / "scores.csv") for p in (folders / "again", trained / "test"))
    pd.testing.assert_frame_equal(again, before)


def test_all_unlabelled_patients_held_out_is_refused(
    trained: Path,
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rather than trained without the slices that were asked for."""
    held_out = json.loads((trained / "run.json").read_text())["patients"]["test"][0]
    index = pd.read_csv(folders / "unlabelled" / "index.csv").assign(patient=held_out)
    (folders / "held_out" / "images").mkdir(parents=True)
    for file in index["file"]:
        picture = (folders / "unlabelled" / "images" / file).read_bytes()
        (folders / "held_out" / "images" / file).write_bytes(picture)
    index.to_csv(folders / "held_out" / "index.csv", index=False)
    with pytest.raises(SystemExit):
        stitchnet(monkeypatch, "train", "--labelled", folders / "labelled", "--unlabelled",
                  folders / "held_out", "--out", folders / "refused", *TINY)  # fmt: skip
    assert "held_out: all its patients are in the" in capsys.readouterr().err


def test_partial_masks_train(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = folders / "partial"
    stitchnet(monkeypatch, "phantom", "--out", partial, "--patients", 2, "--slices", 1,
              "--size", 64, "--first", 50)  # fmt: skip
    for mask in (partial / "masks").iterdir():
        Image.open(mask).point(lambda v: min(v, 2)).save(mask)
    stitchnet(monkeypatch, "train", "--labelled", folders / "labelled", "--partial", partial,
              "--out", folders / "with_partial", *TINY)  # fmt: skip
    _, info = checkpoint.load(folders / "with_partial" / "model.pt")
    assert info["slices"]["partial"] == 2
    assert info["slices"]["unlabelled"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--labelled", "nowhere", "--out", "out"], ["nowhere/index.csv", "missing"]),
        (["evaluate", "none.pt", "nowhere", "--out", "out"], ["none.pt", "stitchnet train"]),
        (["phantom", "--out", "out", "--size", "100"], ["multiple of 32"]),
        (["train", "--labelled", "[x]", "--out", "out"], ["[x]/index.csv"]),
        (["train", "--labelled", "x", "--out", "out", "--size", "100"], ["96 or 128"]),
        (["train", "--labelled", "x", "--out", "out", "--log-every", "0"], ["log_every"]),
        (
            ["train", "--labelled", "x", "--out", "out", "--preset", "tiny", "--weights", "w"],
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
        stitchnet(monkeypatch, "train", "--labelled", folders / "labelled", "--out", trained, *TINY)
    assert (trained / "model.pt").read_bytes() == before


def test_demo_in_miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZE": 64, "LABELLED": (6, 1), "UNLABELLED": (2, 2)}.items():
        monkeypatch.setattr(f"pyro_stitchnet.demo.{name}", value)
    stitchnet(monkeypatch, "demo", "--out", tmp_path / "demo", "--steps", 1)
    assert (tmp_path / "demo" / "run" / "test" / "styles.png").exists()
    with pytest.raises(SystemExit):
        stitchnet(monkeypatch, "demo", "--out", tmp_path / "demo")
