"""Commands from folders to results, and their messages about wrong input."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.shards import checksums, write_table
from pyro_stitchnet.runtime.checksums import read_json, write_json
from pyro_stitchnet.training import checkpoint

TINY: list[object] = ["--preset", "tiny", "--steps", 2, "--labelled-per-batch", 2]
TINY += ["--unlabelled-per-batch", 2, "--log-every", 1, "--validate-every", 2, "--no-progress"]


@pytest.fixture(scope="module")
def folders(stitchnet: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of labelled, unlabelled and partially labelled phantoms, and their dataset."""
    root = tmp_path_factory.mktemp("folders")
    for first, name, patients in ((0, "labelled", 6), (6, "unlabelled", 3), (9, "partial", 2)):
        masks = "--no-masks" if name == "unlabelled" else "--masks"
        stitchnet("phantom", "--out", root / name, "--patients", patients, "--slices",
                  1, "--size", 64, "--first", first, masks)  # fmt: skip
    for mask in (root / "partial" / "masks").iterdir():
        Image.open(mask).point(lambda v: min(v, 2)).save(mask)
    stitchnet("prepare", root / "labelled", root / "unlabelled",
              f"{root / 'partial'}@infection", "--out", root / "dataset", "--size", 64,
              "--lungs", "none", "--workers", 1, "--no-progress")  # fmt: skip
    return root


@pytest.fixture(scope="module")
def trained(stitchnet: Callable[..., None], folders: Path) -> Path:
    stitchnet("train", folders / "dataset", "--out", folders / "run", *TINY)
    return folders / "run"


def test_the_files_of_a_run(trained: Path) -> None:
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


def test_evaluate_repeats_the_scores_of_the_run(
    stitchnet: Callable[..., None],
    trained: Path,
    folders: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stitchnet("evaluate", trained / "model.pt", folders / "dataset", "--out",
              folders / "again", "--patients", "test")  # fmt: skip
    assert "Overall" in capsys.readouterr().out
    stitchnet("evaluate", trained / "model.pt", folders / "dataset", "--out",
              folders / "all")  # fmt: skip
    captured = capsys.readouterr()
    assert "of patients in training or validation: 4 of 6" in captured.err
    assert "scored: 6 of 11 slices; left out: 3 without labels, 2 whose masks do" in captured.out
    again, before = (pd.read_csv(p / "scores.csv") for p in (folders / "again", trained / "test"))
    pd.testing.assert_frame_equal(again, before)


def test_of_infection_masks_infection_alone_is_scored(
    stitchnet: Callable[..., None], trained: Path, folders: Path
) -> None:
    stitchnet("prepare", f"{folders / 'partial'}@infection", "--out",
              folders / "infection", "--size", 64, "--lungs", "none", "--workers", 1,
              "--no-progress")  # fmt: skip
    stitchnet("evaluate", trained / "model.pt", folders / "infection", "--out",
              folders / "infection_scores", "--views", 2, "--decision", "dice",
              "--least-patch", 3)  # fmt: skip
    scores = pd.read_csv(folders / "infection_scores" / "scores.csv")
    assert list(scores["lesion"]) == ["Infection"] * 2
    assert (scores["truth_pixels"] > 0).any()
    info = json.loads((folders / "infection_scores" / "table.json").read_text())["info"]
    assert (info["views"], info["decision"], info["least_patch"]) == (2, "dice", 3)


def test_without_folds_all_patients_are_trained_on(
    stitchnet: Callable[..., None], folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folders / "everyone"
    stitchnet("train", folders / "dataset", "--out", out, "--folds", 0, *TINY)
    assert str(out) in capsys.readouterr().out
    assert not (out / "test").exists()
    _, info = checkpoint.load(out / "model.pt")
    assert info["slices"] == {"labelled": 8, "unlabelled": 3, "validation": 0, "test": 0}
    assert info["best_step"] == 2


def test_a_run_with_a_label_budget_that_runs_out_of_time_is_evaluated(
    folders: Path, stitchnet: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    out = folders / "short"
    stitchnet("train", folders / "dataset", "--out", out, *TINY, "--steps", 99, "--minutes", 1e-9,
              "--label-budget", 2)  # fmt: skip
    assert "ended before step 99\nkept the weights of step 1 of 1;" in capsys.readouterr().out
    _, info = checkpoint.load(out / "model.pt")
    # The budget leaves the other labelled slices unlabelled.
    assert info["slices"] == {"labelled": 4, "unlabelled": 4, "validation": 1, "test": 2}
    assert (out / "test").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "nowhere", "--out", "out"], ["nowhere: no prepared dataset", "prepare"]),
        (["prepare", "nowhere", "--out", "out"], ["nowhere: no such folder"]),
        (["prepare", "--out", "out"], ["no folder to prepare", "stitchnet prepare FOLDER"]),
        (["prepare", ".", "--out", "out"], ["is empty; give the folder that holds the scans"]),
        (["prepare", ".", "--out", "out", "--workers", "0"], ["workers must be at least 1"]),
        (["inspect", "nowhere", "--out", "out"], ["nowhere: no prepared dataset", "prepare"]),
        (["evaluate", "none.pt", "nowhere", "--out", "out"], ["none.pt", "stitchnet train"]),
        (["phantom", "--out", "out", "--size", "100"], ["multiple of 32"]),
        (["phantom", "--out", "out", "--patients", "0"], ["--patients must be at least 1, got 0"]),
        (["train", "[x]", "--out", "out"], ["[x]: no prepared"]),
        (["train", "x", "--out", "out", "--log-every", "0"], ["log_every"]),
        (["train", "x", "--out", "out", "--minutes", "0"], ["minutes must be above 0"]),
        (
            ["train", "x", "--out", "out", "--preset", "tiny", "--weights", "w"],
            ["width", "article"],
        ),
        (["demo", "--out", "out", "--steps", "0"], ["steps must be at least 1"]),
        (["explain", "m", "s", "--out", "out", "--draws", "1"], ["--draws must be at least 2"]),
    ],
)
def test_wrong_input_is_one_line_with_file_and_remedy(
    refused: Callable[..., str],
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(*arguments)
    assert all(word in message for word in words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare", ".", "--out", "out", "--size", "65"], "size 65 is not a positive"),
        (["prepare", ".", "--out", "out", "--window", "9", "1"], "window (9.0, 1.0)"),
        (["evaluate", "m", "d", "--out", "out", "--views", "9"], "views must be at most 8"),
        (["explain", "m", "s", "--out", "out", "--samples", "-1"], "samples must be at least 0"),
        (["train", "x", "--out", "out", "--kl-weight", "0"], "kl_weight must be above 0"),
        (["train", "x", "--out", "out", "--learning-rate", "-1"], "learning_rate must be at least"),
        (
            ["train", "x", "--out", "out", "--label-weight", "nan"],
            "label_weight must be at least 0",
        ),
        (["train", "x", "--out", "out", "--steps", "many"], "steps"),
    ],
)
def test_an_option_out_of_range_is_refused_with_status_2(
    stitchnet: Callable[..., None],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        stitchnet(*arguments)
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", "").split())
    assert not (tmp_path / "out").exists()


@pytest.fixture
def unusable(folders: Path, tmp_path: Path) -> Path:
    """A finished dataset, an interrupted one, and one without any label, in a folder."""
    shutil.copytree(folders / "dataset", tmp_path / "interrupted")
    (tmp_path / "interrupted" / "dataset.json").unlink()
    shutil.copytree(folders / "dataset", tmp_path / "unlabelled")
    manifest = pd.read_csv(tmp_path / "unlabelled" / "manifest.csv")
    manifest[["labelled", "complete", "has_ggo", "has_consolidation"]] = False
    write_table(manifest, tmp_path / "unlabelled" / "manifest.csv")
    about = read_json(tmp_path / "unlabelled" / "dataset.json")
    about["checksums"] = checksums(tmp_path / "unlabelled")
    write_json(tmp_path / "unlabelled" / "dataset.json", about)
    shutil.copytree(folders / "dataset", tmp_path / "whole")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "interrupted", *TINY], ["interrupted: no prepared dataset", "run the same"]),
        (["inspect", "interrupted"], ["interrupted: no prepared dataset", "run the same"]),
        (["evaluate", "MODEL", "interrupted"], ["interrupted: no prepared", "run the same"]),
        (["train", "unlabelled", *TINY], ["unlabelled: no slice is labelled", "label some"]),
        (["evaluate", "MODEL", "unlabelled"], ["unlabelled: no slice has labels"]),
        (["train", "whole", "--label-budget", 99, *TINY], ["whole: labels of 99", "give 1 to 3"]),
        (
            ["train", "whole", "--downsampling", 3, *TINY],
            ["whole: ", "of 96", "prepare ... --size"],
        ),
        (["train", "whole", "--folds", 9, *TINY], ["whole: folds must be between 3", "6, got 9"]),
    ],
)
def test_an_unusable_dataset_is_one_line_with_a_remedy(
    refused: Callable[..., str],
    arguments: list[object],
    words: list[str],
    unusable: Path,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(unusable)
    message = refused(
        *(trained / "model.pt" if argument == "MODEL" else argument for argument in arguments),
        "--out",
        "out",
    )
    assert all(word in message for word in words)
    assert message.count("\n") == 1
    assert not (unusable / "out").exists()


def test_an_empty_argument_is_not_the_working_folder(refused: Callable[..., str]) -> None:
    assert "an argument is empty" in refused("prepare", "", "--out", "out")


COMMANDS: list[list[object]] = [
    ["prepare", "labelled", "--size", 64, "--lungs", "none", "--workers", 1, "--no-progress"],
    ["inspect", "dataset"],
    ["evaluate", "run/model.pt", "dataset", "--samples", 1],
    ["train", "dataset", *TINY],
    ["phantom", "--patients", 1, "--slices", 1, "--size", 64],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command[0]))
@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file/x", "a part of the path is a file"),
        ("file", "a file"),
        ("denied", "no permission; change the permissions"),
    ],
)
def test_an_impossible_output_folder_has_a_remedy(
    refused: Callable[..., str],
    command: list[object],
    out: str,
    words: str,
    folders: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Root may write anywhere, so the system's call is replaced by one that denies permission."""
    (tmp_path / "file").touch()
    mkdir = os.mkdir

    def deny(path: Path, *arguments: object, **options: object) -> None:
        if "denied" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        mkdir(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", deny)
    monkeypatch.chdir(folders)
    error = refused(*command, "--out", tmp_path / out).splitlines()[-1]
    assert error.startswith(f"error: {tmp_path / out}")
    assert words in error
    assert "give another path" in error


def full(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command[0]))
def test_a_full_disk_has_a_remedy(
    refused: Callable[..., str],
    command: list[object],
    folders: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folders)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        error = refused(*command, "--out", tmp_path / "out").splitlines()[-1]
    assert error.startswith(f"error: {tmp_path / 'out'}")
    assert "no space left on the disk; free some space and run the same command again" in error


def test_preparation_continues_after_a_full_disk(
    stitchnet: Callable[..., None],
    refused: Callable[..., str],
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folders)
    command = [*COMMANDS[0], "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr("pyro_stitchnet.data.datasets.prepare.write_json", full)
        error = refused(*command)
    assert error.startswith(f"error: {tmp_path / 'out'}: no space left on the disk; free some")
    stitchnet(*command)
    assert len(Dataset(tmp_path / "out")) == 6


@pytest.mark.parametrize(("command", "result"), [(1, "inspection.md"), (2, "table.md")])
def test_results_are_not_overwritten(
    refused: Callable[..., str],
    command: int,
    result: str,
    folders: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / result).write_text("of an hour ago")
    monkeypatch.chdir(folders)
    message = refused(*COMMANDS[command], "--out", tmp_path)
    assert f"{tmp_path}: holds results already ({result}); choose another --out" in message
    assert [path.name for path in tmp_path.iterdir()] == [result]
    assert (tmp_path / result).read_text() == "of an hour ago"


@pytest.mark.parametrize("command", [2, 3])
def test_results_are_not_mixed_with_other_files(
    refused: Callable[..., str],
    command: int,
    folders: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("scan.nii.gz", ".DS_Store", "scores.csv", "config.yaml"):
        (tmp_path / name).write_text("mine")  # evaluate writes the third, train the fourth
    monkeypatch.chdir(folders)
    message = refused(*COMMANDS[command], "--out", tmp_path)
    others = {2: "config.yaml, scan.nii.gz", 3: "scan.nii.gz, scores.csv"}[command]
    assert f"{tmp_path}: holds other files ({others})" in message
    assert "choose an empty or new folder" in message
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}


def test_notes_on_a_preparation(
    stitchnet: Callable[..., None],
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folders)
    _, source, *options = COMMANDS[0]
    stitchnet("prepare", source, *options, "--out", tmp_path / "assumed")
    assert "note: Masks are read by the rule 'full'" in capsys.readouterr().err
    stitchnet("prepare", f"{source}@full", *options, "--out", tmp_path / "named")
    assert capsys.readouterr().err == ""
    shutil.copytree(folders / "unlabelled", tmp_path / "bad")
    next((tmp_path / "bad" / "images").iterdir()).write_bytes(b"")
    stitchnet("prepare", tmp_path / "bad", *options, "--skip-bad", "--out", tmp_path / "few")
    captured = capsys.readouterr()
    assert captured.err == f"note: scans left out: 1, see {tmp_path / 'few' / 'skipped.csv'}\n"
    assert captured.out.startswith("slices: 2, with labels: 0, patients: 2; ")


def test_a_run_is_not_overwritten(
    stitchnet: Callable[..., None], trained: Path, folders: Path
) -> None:
    before = (trained / "model.pt").read_bytes()
    with pytest.raises(SystemExit):
        stitchnet("train", folders / "dataset", "--out", trained, *TINY)
    assert (trained / "model.pt").read_bytes() == before


def test_demo_in_miniature(
    stitchnet: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SIZE": 64, "LABELLED": (6, 1), "UNLABELLED": (2, 2)}.items():
        monkeypatch.setattr(f"pyro_stitchnet.cli.demo.{name}", value)
    stitchnet("demo", "--out", tmp_path / "demo", "--steps", 1)
    assert (tmp_path / "demo" / "run" / "test" / "styles.png").exists()
    with pytest.raises(SystemExit):
        stitchnet("demo", "--out", tmp_path / "demo")
