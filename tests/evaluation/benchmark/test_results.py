"""The results of a benchmark are read back as they were written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pyro_stitchnet.evaluation.benchmark import results as module
from pyro_stitchnet.evaluation.benchmark.report import report
from pyro_stitchnet.evaluation.benchmark.results import CHECKSUMS, SCORES, TABLE, Results


@pytest.fixture
def folder(first_fold: Path, tmp_path: Path) -> Path:
    shutil.copytree(first_fold, tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize("commit", ["5090819", "0012345", "12e4567"])
def test_a_commit_that_looks_like_a_number_stays_text(
    folder: Path, write_rows: Callable[[Path, pd.DataFrame], None], commit: str
) -> None:
    rows = Results(folder).rows.assign(commit=commit, python="3.10")
    write_rows(folder, rows)
    assert set(Results(folder).rows["commit"]) == {commit}
    assert set(Results(folder).rows["python"]) == {"3.10"}
    report(Results(folder).rows, None, folder)
    assert f"| {commit} |" in (folder / "report.md").read_text(encoding="utf-8")


def test_a_patient_may_be_called_like_a_missing_value(folder: Path) -> None:
    before = Results(folder)
    row = {**before.rows.iloc[0].to_dict(), "seed": 7}
    scores = pd.read_csv(folder / SCORES).head(3).assign(seed=7, patient="NA")
    before.add([row], scores)
    written = pd.read_csv(folder / SCORES, keep_default_na=False)
    assert set(written.loc[written["seed"] == 7, "patient"]) == {"NA"}
    assert Results(folder).rows["style_gap_mean"].isna().any()


def test_results_go_on_and_are_reported_without_the_scores(folder: Path) -> None:
    complete = report(Results(folder).rows, "unet", folder)
    scores = pd.read_csv(folder / SCORES).head(3).assign(seed=7)
    (folder / SCORES).unlink()
    results = Results(folder)
    assert str(report(results.rows, "unet", folder)) == str(complete)
    results.add([{**results.rows.iloc[0].to_dict(), "seed": 7}], scores)
    assert set(Results(folder).rows["seed"]) == {0, 7}


def test_scores_of_an_interrupted_model_are_replaced(folder: Path) -> None:
    results = Results(folder)
    row = {**results.rows.iloc[0].to_dict(), "seed": 7}
    scores = pd.read_csv(folder / SCORES)
    interrupted = scores[scores["name"] == row["name"]].head(3).assign(seed=7, f1=-1.0)
    pd.concat([scores, interrupted]).to_csv(folder / SCORES, index=False)
    results.add([row], interrupted.assign(f1=0.5))
    written = pd.read_csv(folder / SCORES)
    assert written.loc[written["seed"] == 7, "f1"].tolist() == [0.5] * 3
    assert len(written) == len(scores) + 3


def test_a_damaged_table_is_refused(folder: Path) -> None:
    content = bytearray((folder / TABLE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / TABLE).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{TABLE}: damaged or edited since it was written"):
        Results(folder)


def test_a_table_without_checksums_is_refused(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()
    with pytest.raises(FileNotFoundError, match=CHECKSUMS):
        Results(folder)


def test_rows_of_an_older_version_are_left_out_of_the_report(
    folder: Path,
    write_rows: Callable[[Path, pd.DataFrame], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = Results(folder).rows
    older = rows.assign(seed=7, dice_by_patient=None)
    write_rows(folder, pd.concat([rows, older]))
    before = report(Results(folder).rows, "unet", folder)["4 labelled slices"]
    assert {row[1] for row in before.rows} == {"1"}
    assert f"{len(older)} rows of an older version are left out" in capsys.readouterr().err
    write_rows(folder, older)
    with pytest.raises(ValueError, match="older version; run the benchmark again"):
        report(Results(folder).rows, None, folder)


def test_damaged_scores_are_refused_before_a_training(folder: Path) -> None:
    (folder / SCORES).write_text("")
    with pytest.raises(ValueError, match=r"scores\.csv: damaged .* remove it"):
        Results(folder)


@pytest.mark.parametrize("write", range(1, 4))
def test_a_kill_between_two_writes_loses_nothing(
    folder: Path, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores, the checksums and the rows are written in this order."""
    before = Results(folder)
    row = {**before.rows.iloc[0].to_dict(), "seed": 7}
    scores = pd.read_csv(folder / SCORES).head(3).assign(seed=7)
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
