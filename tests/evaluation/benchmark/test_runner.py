"""Cells are trained once, go on where they stopped, repeat themselves, and see no test label."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.partition import cut
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.evaluation.benchmark import runner
from pyro_stitchnet.evaluation.benchmark.report import (
    _curves,
    _false_alarms,
    lesion_dice,
    line_names,
    report,
)
from pyro_stitchnet.evaluation.benchmark.runner import CELL, Cell, Tables, fit, run
from pyro_stitchnet.evaluation.benchmark.spec import Budget, Entry, Spec, read_spec
from pyro_stitchnet.presets import preset

SIZE = 64
FIGURES = ["dice_ggo", "dice_con", "ece_ggo", "infection_elsewhere", "validation_dice"]


def prepared(sources: Sequence[str], out: Path) -> Path:
    prepare(sources, out, preprocessing=Preprocessing(size=SIZE, lungs="none"), progress=False)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_folder(phantom_slices(range(10), 2, size=SIZE), folder / "labelled")
    write_folder(phantom_slices(range(10, 14), 2, size=SIZE), folder / "mute", masks=False)
    prepared([str(folder / "labelled"), str(folder / "mute")], folder / "data")
    write_folder(phantom_slices(range(20, 22), 2, size=SIZE), folder / "partial")
    for path in (folder / "partial" / "masks").glob("*.png"):
        mask = np.array(Image.open(path))
        Image.fromarray(np.minimum(mask, 2)).save(path)
    prepared([f"{folder / 'partial'}@infection"], folder / "elsewhere")
    return folder


def small(folder: Path, **settings: object) -> Spec:
    spec = Spec(
        data=folder / "data",
        elsewhere=folder / "elsewhere",
        entries={"unet": Entry("unet"), "tiny": Entry("stitchnet-tiny")},
        budgets=[Budget(4, folds=5)],
        steps=2,
        labelled_per_batch=2,
        unlabelled_per_batch=1,
        validate_every=1,
    )
    return replace(spec, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def results(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first fold of both entries."""
    out = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_cells", lambda spec: list(CELLS(spec))[:2])
        run(small(folder), out)
    return out


CELLS = runner._cells


def test_every_reading_is_a_row_with_its_figures_and_origin(results: Path) -> None:
    rows = Tables(results).rows
    assert list(rows["reading"]) == ["", "threshold", "gaussian", "", "posterior"]
    assert {"command", "commit", "machine", "date", "seed", "seconds_training"} <= set(rows)
    assert rows[["ece_ggo", "brier_con", "infection_elsewhere"]].notna().all(axis=None)
    scores = Tables(results).scores
    assert set(scores["set"]) == {"test", "elsewhere"}
    assert set(scores.loc[scores["set"] == "elsewhere", "lesion"]) == {"Infection"}
    assert len(scores[(scores["set"] == "test") & (scores["reading"] == "posterior")]) == 4 * 4


def test_every_decision_is_a_row_of_the_same_model(
    folder: Path, results: Path, tmp_path: Path
) -> None:
    budget = Budget(4, folds=5, tested=1)
    spec = small(folder, decisions=("likeliest", "dice"), budgets=[budget])
    tables = run(spec, tmp_path, ["unet"])
    names = ["", "dice", "threshold", "threshold, dice", "gaussian", "gaussian, dice"]
    assert list(tables.rows["reading"]) == names
    plain, dice = (tables.rows[tables.rows["reading"] == name].iloc[0] for name in ("", "dice"))
    before = Tables(results).rows.iloc[0]
    assert plain["dice_ggo"] == pytest.approx(before["dice_ggo"])
    assert dice["ece_ggo"] == plain["ece_ggo"]
    found = tables.scores[tables.scores["lesion"] == "Infection"]
    marked = found.groupby("reading")["predicted_pixels"].sum()
    assert marked["dice"] > marked[""]


def test_what_is_done_is_not_done_again(
    folder: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(results, out)
    done: list[Cell] = []

    def stop(_: Spec, cell: Cell, *__: object) -> None:
        done.append(cell)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_tested", stop)
    with pytest.raises(KeyboardInterrupt):
        run(small(folder), out)
    assert [(cell.name, cell.fold) for cell in done] == [("unet", 1)]


def test_only_what_is_asked_for_is_trained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are unet, tiny"):
        run(small(folder), tmp_path, ["big"])


def test_scores_of_a_cell_that_was_cut_short_are_left_out(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(results, out)
    whole = Tables(out)
    whole.rows[whole.rows["name"] == "unet"].to_csv(out / "table.csv", index=False)
    cut_short = Tables(out)
    assert set(cut_short.scores["name"]) == {"unet"}
    assert not cut_short.has({**dict.fromkeys(CELL, 0), "name": "tiny"})


@pytest.mark.parametrize("commit", ["5090819", "0012345", "12e4567"])
def test_a_commit_that_looks_like_a_number_stays_text(
    results: Path, tmp_path: Path, commit: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(results, out)
    rows = Tables(out).rows.assign(commit=commit, python="3.10")
    rows.to_csv(out / "table.csv", index=False)
    assert set(Tables(out).rows["commit"]) == {commit}
    assert set(Tables(out).rows["python"]) == {"3.10"}
    assert f"| {commit} |" in report(Tables(out), None, out)


def test_a_patient_may_be_called_like_a_missing_value(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(results, out)
    Tables(out).scores.assign(patient="NA").to_csv(out / "scores.csv", index=False)
    assert set(Tables(out).scores["patient"]) == {"NA"}
    assert Tables(out).rows["style_gap_mean"].isna().any()


def test_rows_without_scores_are_refused(results: Path, tmp_path: Path) -> None:
    shutil.copy(results / "table.csv", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"scores\.csv: not there"):
        Tables(tmp_path)


def test_a_row_is_reproduced(folder: Path, results: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_cells", lambda spec: list(CELLS(spec))[:1])
        again = run(small(folder), tmp_path / "again").rows
    before = Tables(results).rows[["name", "reading", *FIGURES]]
    pd.testing.assert_frame_equal(
        again[["name", "reading", *FIGURES]], before[before["name"] == "unet"], rtol=1e-6
    )


def test_a_budget_without_validation_trains_its_fold(folder: Path, tmp_path: Path) -> None:
    budget = Budget(8, folds=5, tested=1, validation=False)  # 6 slices beside a validation fold
    rows = run(small(folder, budgets=[budget]), tmp_path, ["unet"]).rows
    assert rows["validation_dice"].isna().all()
    assert rows["dice_ggo"].notna().any()


def test_options_are_not_chosen_without_validation(folder: Path) -> None:
    chosen = {"unet": Entry("unet", options={"learning_rate": [1e-3, 2e-3]})}
    with pytest.raises(ValueError, match=r"entries\.unet: options cannot be chosen"):
        small(folder, entries=chosen, budgets=[Budget(4, validation=False)])


@pytest.mark.parametrize("name", ["unet", "tiny"])
def test_no_method_sees_test_labels(folder: Path, name: str) -> None:
    """Scrambled, they leave the trained weights as they are, to the bit."""
    spec = small(folder)
    cell = Cell(name, spec.entries[name], spec.budgets[0], 0, 0)
    _, parts = cut(Dataset(spec.data), fold=0, folds=5, seed=0, label_budget=4)
    honest = {part: chosen.load() for part, chosen in parts.items()}
    test = honest["test"]
    assert not set(test.patients) & {
        p for part in honest if part != "test" for p in honest[part].patients
    }
    scrambled = {**honest, "test": replace(test, label_sets=torch.ones_like(test.label_sets))}
    one, other = (fit(spec, cell, slices, {})[0].state_dict() for slices in (honest, scrambled))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Entry("unet", options={"strength": 1}), "entries.last: .*strength"),
        (
            Entry("stitchnet-guided", options={"posterior_weight": [1, -1]}),
            "entries.last: .*least 0",
        ),
    ],
)
def test_options_are_refused_before_anything_is_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Entry, words: str
) -> None:
    monkeypatch.setattr(runner, "fit", None)
    with pytest.raises(ValueError, match=words):
        run(small(folder, entries={"unet": Entry("unet"), "last": entry}), tmp_path)


@pytest.mark.parametrize("path", sorted(Path("benchmarks").glob("*.yaml")), ids=str)
def test_the_options_of_our_own_specifications_are_taken(path: Path) -> None:
    for name, entry in read_spec(path).entries.items():
        runner._check_options(name, entry)


def test_a_split_that_leaks_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dealt by slice, not by patient."""

    def by_slice(manifest: pd.DataFrame, **_: object) -> pd.Series:
        return pd.Series(["train", "validation", "test", "train"] * len(manifest))[: len(manifest)]

    monkeypatch.setattr("pyro_stitchnet.data.datasets.partition.assign", by_slice)
    with pytest.raises(ValueError, match="patient"):
        run(small(folder), tmp_path)
    assert not (tmp_path / "table.csv").exists()


def test_the_best_candidate_on_validation_is_tested(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = runner.fit, []

    def scored(spec: Spec, cell: Cell, slices: object, options: dict[str, float]) -> object:
        asked.append(options)
        return real(spec, cell, slices, options)[0], options["learning_rate"]  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "fit", scored)
    monkeypatch.setattr(runner, "_cells", lambda spec: list(CELLS(spec))[:1])
    entry = Entry("unet", options={"learning_rate": [1e-3, 3e-3, 2e-3]})
    rows = run(small(folder, entries={"unet": entry}), tmp_path).rows
    assert len(asked) == 3
    assert (rows["validation_dice"] == 3e-3).all()


def test_the_report_compares_the_lines(results: Path, tmp_path: Path) -> None:
    text = report(Tables(results), "unet", tmp_path)
    assert "## 4 labelled slices" in text
    assert "| tiny (posterior) |" in text
    assert "minus unet" in text
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == text
    assert (tmp_path / "label_efficiency.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="there are unet"):
        report(Tables(results), "nobody", tmp_path)
    with pytest.raises(ValueError, match="no results"):
        report(Tables(tmp_path / "nowhere"), "unet", tmp_path)


def test_the_report_says_what_unlabelled_slices_add_in_the_runs_of_both(
    results: Path, tmp_path: Path
) -> None:
    tables = Tables(results)
    for name, table in {"table.csv": tables.rows, "scores.csv": tables.scores}.items():
        mute = table[(table["name"] == "unet") & (table["reading"] == "")].copy()
        mute["name"] = "teacher"
        if "f1" in mute:
            mute["f1"] += 0.1
        else:
            mute[["method", "unlabelled"]] = "mean-teacher", True
        other = mute.assign(seed=1, **({"f1": 0.9} if "f1" in mute else {}))
        pd.concat([table, mute, other]).to_csv(tmp_path / name, index=False)
    text = report(Tables(tmp_path), "unet", tmp_path)
    assert "| teacher | unet | +0.100: +0.100 | +0.100 | +0.100 to +0.100 |" in text
    assert "| tiny | unet |" not in text  # another model, which has no line from labels alone


def test_curves_are_of_lines_with_several_budgets_and_likeliest_labels(results: Path) -> None:
    scores = Tables(results).scores
    scores = scores.assign(line=line_names(scores))
    lines = {"unet", "unet (threshold)", "unet (gaussian)", "tiny", "tiny (posterior)"}
    assert set(_curves(scores)["line"]) == lines  # a single budget is all there is
    unet = scores[scores["line"] == "unet"]
    decided = unet.assign(reading="dice", line="unet (dice)")
    drawn = _curves(pd.concat([scores, unet.assign(labels=8), decided, decided.assign(labels=8)]))
    assert list(drawn["line"]) == ["unet", "unet"]


def test_dice_counts_slices_with_the_lesion_and_patients_alike() -> None:
    scores = pd.DataFrame(
        {
            "patient": ["a", "a", "a", "b", "b"],
            "lesion": ["GGO", "GGO", "CON", "GGO", "CON"],
            "truth_pixels": [1, 1, 1, 1, 0],
            "f1": [0.2, 0.4, 0.7, 1.0, 0.0],
        }
    )
    assert lesion_dice(scores).to_dict() == pytest.approx({"a": 0.5, "b": 1.0})


def test_a_false_alarm_is_a_lesion_where_there_is_none() -> None:
    scores = pd.DataFrame(
        {
            "lesion": ["CON", "CON", "CON", "GGO"],
            "truth_pixels": [0, 0, 5, 0],
            "predicted_pixels": [2, 0, 3, 1],
        }
    )
    assert [_false_alarms(scores, lesion) for lesion in ("CON", "GGO")] == ["1 of 2", "1 of 1"]


def test_the_command_line_writes_the_report(
    stitchnet: Callable[..., None], refused: Callable[..., str], results: Path, folder: Path,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"data: {folder / 'data'}\nentries: {{unet: {{method: unet}}}}\n"
        "budgets: [{labels: 4, tested: 1}]\n"
    )
    out = tmp_path / "out"
    shutil.copytree(results, out)
    stitchnet("benchmark", spec, "--out", out, "--report-only")
    assert "labelled slices" in capsys.readouterr().out
    # What was trained is told of even if there is nothing yet to compare it with.
    stitchnet("benchmark", spec, "--out", out, "--against", "unet (later)")
    told = capsys.readouterr()
    assert "labelled slices" in told.out
    assert "no results of 'unet (later)'" in told.err
    # A name that no training will give is told of before any.
    spec.write_text(spec.read_text().replace("labels: 4", "labels: 5") + "steps: 1\n")
    said = refused("benchmark", spec, "--out", out, "--against", "unett (gaussian)")
    assert "no entry 'unett (gaussian)'; there are unet" in said
    assert 5 not in set(Tables(out).rows["labels"])


def test_from_labels_alone_guided_learns_the_unet_of_the_same_seed(folder: Path) -> None:
    """So whatever sets the two apart in a table is the generative part, not another start."""
    entries = {
        "unet": Entry("unet"),
        "guided": Entry("stitchnet-guided", unlabelled=False, options={"posterior_weight": 0}),
    }
    spec = small(folder, entries=entries, steps=3, optimiser=preset("guided").optimiser)
    _, parts = cut(Dataset(spec.data), fold=0, folds=5, seed=0, label_budget=4)
    slices = {part: chosen.load() for part, chosen in parts.items()}
    learnt = []
    for name, entry in entries.items():
        cell = Cell(name, entry, spec.budgets[0], 0, 0)
        learner, _ = fit(spec, cell, slices, entry.options)
        network = learner.get_submodule("network" if name == "unet" else "net.segmenter")
        learnt.append(network.state_dict())
    unet, segmenter = learnt
    assert unet.keys() == segmenter.keys()
    for key, value in unet.items():
        torch.testing.assert_close(segmenter[key], value, rtol=0, atol=0, msg=key)
