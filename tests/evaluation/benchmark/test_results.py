"""The tables of a benchmark are read back as they were written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pyro_stitchnet.evaluation.benchmark import results as module
from pyro_stitchnet.evaluation.benchmark.report import report
from pyro_stitchnet.evaluation.benchmark.results import CELL, CHECKSUMS, TABLES, Results
from pyro_stitchnet.runtime.checksums import sha256, write_json


@pytest.fixture
def folder(first_fold: Path, tmp_path: Path) -> Path:
    shutil.copytree(first_fold, tmp_path / "results")
    return tmp_path / "results"


def rewrite(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, index=False)
    checksums = {name: [sha256(path.parent / name)] for name in TABLES}
    write_json(path.parent / CHECKSUMS, checksums)


def test_scores_of_an_interrupted_model_are_ignored(folder: Path) -> None:
    complete = Results(folder)
    rewrite(folder / "table.csv", complete.rows[complete.rows["name"] == "unet"])
    interrupted = Results(folder)
    assert set(interrupted.scores["name"]) == {"unet"}
    assert not interrupted.has({**dict.fromkeys(CELL, 0), "name": "tiny"})


@pytest.mark.parametrize("commit", ["5090819", "0012345", "12e4567"])
def test_a_commit_that_looks_like_a_number_stays_text(folder: Path, commit: str) -> None:
    rows = Results(folder).rows.assign(commit=commit, python="3.10")
    rewrite(folder / "table.csv", rows)
    assert set(Results(folder).rows["commit"]) == {commit}
    assert set(Results(folder).rows["python"]) == {"3.10"}
    report(Results(folder), None, folder)
    assert f"| {commit} |" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_patient_may_be_called_like_a_missing_value(folder: Path) -> None:
    rewrite(folder / "scores.csv", Results(folder).scores.assign(patient="NA"))
    assert set(Results(folder).scores["patient"]) == {"NA"}
    assert Results(folder).rows["style_gap_mean"].isna().any()


def test_rows_without_scores_are_refused(folder: Path) -> None:
    (folder / "scores.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"scores\.csv: missing"):
        Results(folder)


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: damaged or edited since it was written"):
        Results(folder)


def test_tables_without_checksums_are_refused(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()
    with pytest.raises(FileNotFoundError, match=CHECKSUMS):
        Results(folder)


@pytest.mark.parametrize("write", range(1, 4))
def test_a_kill_between_two_writes_loses_nothing(
    folder: Path, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checksums, the scores and the rows are written in this order."""
    before = Results(folder)
    row = {**before.rows.iloc[0].to_dict(), "seed": 7}
    scores = before.scores.head(3).assign(seed=7)
    done = 0

    def counted(function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            nonlocal done
            done += 1
            if done > write:
                raise KeyboardInterrupt
            function(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", counted(module.write_json))
        patch.setattr(module, "write_atomically", counted(module.write_atomically))
        if write < 3:
            with pytest.raises(KeyboardInterrupt):
                before.add([row], scores)
        else:
            before.add([row], scores)
    after = Results(folder)
    assert after.has(row) == (write == 3)
    after.add([row], scores)
    assert Results(folder).has(row)
