"""The tables of a benchmark are read back as they were written."""

import shutil
from pathlib import Path

import pytest

from pyro_stitchnet.evaluation.benchmark.report import report
from pyro_stitchnet.evaluation.benchmark.results import CELL, Results


@pytest.fixture
def folder(first_fold: Path, tmp_path: Path) -> Path:
    shutil.copytree(first_fold, tmp_path / "results")
    return tmp_path / "results"


def test_scores_of_an_interrupted_model_are_ignored(folder: Path) -> None:
    complete = Results(folder)
    complete.rows[complete.rows["name"] == "unet"].to_csv(folder / "table.csv", index=False)
    interrupted = Results(folder)
    assert set(interrupted.scores["name"]) == {"unet"}
    assert not interrupted.has({**dict.fromkeys(CELL, 0), "name": "tiny"})


@pytest.mark.parametrize("commit", ["5090819", "0012345", "12e4567"])
def test_a_commit_that_looks_like_a_number_stays_text(folder: Path, commit: str) -> None:
    rows = Results(folder).rows.assign(commit=commit, python="3.10")
    rows.to_csv(folder / "table.csv", index=False)
    assert set(Results(folder).rows["commit"]) == {commit}
    assert set(Results(folder).rows["python"]) == {"3.10"}
    report(Results(folder), None, folder)
    assert f"| {commit} |" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_patient_may_be_called_like_a_missing_value(folder: Path) -> None:
    Results(folder).scores.assign(patient="NA").to_csv(folder / "scores.csv", index=False)
    assert set(Results(folder).scores["patient"]) == {"NA"}
    assert Results(folder).rows["style_gap_mean"].isna().any()


def test_rows_without_scores_are_refused(folder: Path) -> None:
    (folder / "scores.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"scores\.csv: missing"):
        Results(folder)
