"""The report of a benchmark: its tables, comparisons and curves."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest

from pyro_stitchnet.evaluation.benchmark.columns import line_names
from pyro_stitchnet.evaluation.benchmark.report import curves, report
from pyro_stitchnet.evaluation.benchmark.results import Results
from pyro_stitchnet.evaluation.benchmark.spec import Spec

LINES = ["unet", "unet (threshold)", "unet (gaussian)", "unet (levels)", "tiny", "tiny (posterior)"]


def test_the_report_has_a_row_per_line_and_tables_of_at_most_seven_columns(
    small: Callable[..., Spec], first_fold: Path, tmp_path: Path
) -> None:
    (table,) = report(Results(first_fold).rows, "unet", tmp_path).values()
    assert [row[0] for row in table.rows] == LINES
    assert [*small().lines("unet"), *small().lines("tiny")] == LINES
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## 4 labelled slices" in text
    assert f"### Dice on slices with the lesion\n\n{table.markdown()}" in text
    compared = text.partition("### Difference from unet")[2].partition("###")[0]
    assert [line.split(" | ")[0] for line in compared.splitlines()[4:] if line] == [
        f"| {line}" for line in LINES[1:]
    ]
    assert "| tiny | 1 |" in text.partition("### Styles inside the lung")[2]
    assert max(line.count("|") for line in text.splitlines()) <= 8
    assert (tmp_path / "label_efficiency.png").stat().st_size > 10_000


def test_unknown_lines_and_empty_results_are_refused(first_fold: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are unet"):
        report(Results(first_fold).rows, "nobody", tmp_path)
    with pytest.raises(ValueError, match="no results"):
        report(Results(tmp_path / "nowhere").rows, "unet", tmp_path)


def test_runs_with_other_folds_have_tables_of_their_own(first_fold: Path, tmp_path: Path) -> None:
    rows = Results(first_fold).rows
    tables = report(pd.concat([rows, rows.assign(folds=3)]), "unet", tmp_path)
    assert list(tables) == ["4 labelled slices, 3 folds", "4 labelled slices, 5 folds"]
    assert [row[1] for table in tables.values() for row in table.rows] == 2 * len(LINES) * ["1"]


def test_lines_are_compared_with_the_line_of_as_many_steps(
    first_fold: Path, tmp_path: Path
) -> None:
    rows = Results(first_fold).rows
    more = rows[rows["variant"] == ""]
    more = more.assign(name=more["name"] + ", more steps", steps=more["steps"] + 1)
    steps = int(rows["steps"].iloc[0])
    unet = rows[(rows["name"] == "unet") & (rows["variant"] == "")]
    first = unet.assign(name="first", pretrain_steps=1)
    first_long = unet.assign(name="first, long", pretrain_steps=9)
    teacher = unet.assign(name="teacher", unlabelled=True, steps=steps + 10)
    report(pd.concat([rows, more, first, first_long, teacher]), "unet", tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    compared = text.partition("### Difference from unet")[2].partition("###")[0]
    rows_of_table = [line.strip("| ").split(" | ") for line in compared.splitlines()[4:] if line]
    assert {line: (other, counts) for line, other, counts, *_ in rows_of_table} == {
        **dict.fromkeys(LINES[1:], ("unet", f"{steps}")),
        "unet, more steps": ("unet", f"{steps + 1} / {steps}"),  # the gain from the steps
        "tiny, more steps": ("unet, more steps", f"{steps + 1}"),
        "first": ("unet, more steps", f"{steps + 1}"),
        "first, long": ("unet", f"{steps + 9} / {steps}"),
        "teacher": ("unet", f"{steps + 10} / {steps}"),
    }


def test_the_gain_from_unlabelled_slices_is_over_the_runs_of_both(
    first_fold: Path, tmp_path: Path
) -> None:
    rows = Results(first_fold).rows
    unet = rows[(rows["name"] == "unet") & (rows["variant"] == "")]

    def of_teacher(seed: int, patients: Mapping[str, float]) -> pd.DataFrame:
        named = unet.assign(name="teacher", method="mean-teacher", unlabelled=True, seed=seed)
        infection = unet["other_hospital_infection"] + 0.1
        columns = {"dice_by_patient": json.dumps(patients), "other_hospital_infection": infection}
        return named.assign(**columns)

    better = {p: dice + 0.1 for p, dice in json.loads(unet["dice_by_patient"].item()).items()}
    table = pd.concat([rows, of_teacher(0, better), of_teacher(1, dict.fromkeys(better, 0.9))])
    report(table, "unet", tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    gains = text.partition("### Gain from unlabelled slices")[2].partition("###")[0]
    assert "| teacher | unet | +0.100: +0.100 | +0.100 | +0.100 to +0.100 |" in gains
    assert "| tiny | unet |" not in gains  # tiny has no line trained on labels alone


def test_the_gain_from_unlabelled_slices_is_over_the_same_options(
    first_fold: Path, tmp_path: Path
) -> None:
    rows = Results(first_fold).rows
    tiny = rows[(rows["name"] == "tiny") & (rows["variant"] == "")]
    other = tiny.assign(name="other", tried=json.dumps({json.dumps({"width": 0.5}): 0.1}))
    alone = tiny.assign(name="alone", unlabelled=False)
    first = tiny.assign(name="first", seed=1, pretrain_steps=2)
    older = first.assign(seed=0, pretrain_steps=None)  # a row from before this column
    table = pd.concat([rows, other, alone, first, older])
    report(table, "unet", tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| tiny | alone |" in text
    assert "| other | alone |" not in text
    assert "| first | alone |" not in text  # pre-trained, so it had more steps


def test_curves_are_of_lines_with_several_budgets_and_likeliest_labels(first_fold: Path) -> None:
    rows = Results(first_fold).rows
    rows = rows.assign(line=line_names(rows))
    assert set(curves(rows)["line"]) == set(LINES)  # there is a single budget
    unet = rows[rows["line"] == "unet"]
    dice = unet.assign(variant="dice", line="unet (dice)")
    points = curves(pd.concat([rows, unet.assign(labels=8), dice, dice.assign(labels=8)]))
    assert list(points["line"]) == ["unet", "unet"]
    # A run with one budget would move one point of the curve only.
    better = unet.assign(seed=1, dice_by_patient=json.dumps({"other": 1.0}))
    more = curves(pd.concat([rows, better, unet.assign(labels=8)]))
    assert more["dice"].tolist() == points["dice"].tolist()


def test_the_command_writes_the_report_and_prints_a_table(
    stitchnet: Callable[..., None],
    refused: Callable[..., str],
    first_fold: Path,
    datasets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"data: {datasets / 'data'}\nother_hospital: {datasets / 'other_hospital'}\n"
        "entries: {unet: {method: unet}}\nbudgets: [{labels: 4, tested: 1}]\nsteps: 2\n"
        "labelled_per_batch: 2\nunlabelled_per_batch: 1\nvalidate_every: 1\n"
    )
    out = tmp_path / "out"
    shutil.copytree(first_fold, out)
    stitchnet("benchmark", spec, "--out", out, "--report-only")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Dice with 4 labelled slices"
    assert printed[-1] == f"report: {out / 'report.md'}"
    assert max(map(len, printed[:-1])) <= 100
    # Results are reported even if there is nothing to compare them with yet.
    spec.write_text(spec.read_text().replace("entries: {", "entries: {later: {method: unet}, "))
    command = ("benchmark", spec, "--out", out)
    stitchnet(*command, "--only", "unet", "--against", "later (levels)")
    captured = capsys.readouterr()
    assert captured.out.splitlines() == printed
    assert "no results of 'later (levels)'" in captured.err
    # The rows of `tiny` are not of this specification.
    assert "rows of entries, budgets or seeds that the specification does not have" in captured.err
    assert "tiny" not in (out / "report.md").read_text()
    # A name that no training will give is refused before training.
    spec.write_text(spec.read_text().replace("labels: 4", "labels: 5"))
    message = refused(*command, "--against", "nnet (gaussian)")
    assert "no entry 'nnet (gaussian)'; there are later, unet" in message
    message = refused(*command, "--against", "unet (gaussian")
    assert "no line 'unet (gaussian'; there are unet, unet (threshold), unet (gaussian)" in message
    assert "leave out --only" in refused(*command, "--report-only", "--only", "unet")
    assert 5 not in set(Results(out).rows["labels"])
