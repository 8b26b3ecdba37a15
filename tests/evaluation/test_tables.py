"""Table 1: against NumPy, by hand, and read back from its files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pyro_stitchnet.evaluation.tables import per_patient, save, summary, table_one, to_markdown
from pyro_stitchnet.metrics.scores import SCORES, slice_scores


@pytest.fixture
def scores() -> pd.DataFrame:
    """Thirty random slices of ten patients, many of them without one or both lesions."""
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, (2, 30, 2, 3))
    return slice_scores(
        truth, predicted, patients=[f"p{n % 7 % 5 + 5 * (n % 2)}" for n in range(30)]
    )


@pytest.fixture
def four() -> pd.DataFrame:
    """Four slices of two pixels: GGO found, missed, a false alarm, a true negative."""
    truth = np.array([[[2, 2]], [[2, 0]], [[0, 0]], [[0, 0]]])
    predicted = np.array([[[2, 0]], [[0, 0]], [[2, 0]], [[0, 0]]])
    return slice_scores(truth, predicted, patients=["a", "a", "a", "b"])


def test_means_and_deviations_are_those_of_numpy(scores: pd.DataFrame) -> None:
    table = table_one(scores)
    assert list(table.index) == ["GGO", "CON", "Background", "Overall", "Infection"]
    for lesion in ("GGO", "CON", "Background"):
        rows = scores[scores["lesion"] == lesion]
        for score in SCORES:
            values = rows[score].to_numpy()
            assert table.loc[lesion, f"{score}_mean"] == pytest.approx(np.nanmean(values))
            assert table.loc[lesion, f"{score}_std"] == pytest.approx(np.nanstd(values))
            assert table.loc[lesion, f"{score}_defined"] == np.isfinite(values).sum()
    assert table.loc["GGO", "recall_defined"] < 30  # undefined scores occur


def test_overall_is_the_mean_of_the_three_means(scores: pd.DataFrame) -> None:
    table = table_one(scores)
    for column in [f"{score}_mean" for score in SCORES] + ["f1_lesion_present_mean", "pooled_dice"]:
        assert table.loc["Overall", column] == pytest.approx(np.mean(table[column].iloc[:3]))
    assert table.loc["Overall", [f"{score}_std" for score in SCORES]].isna().all()
    assert table.loc["Overall", "images"] == 30
    assert pd.isna(table.loc["Overall", "missed_images"])


def test_counts_by_hand(four: pd.DataFrame) -> None:
    ggo = table_one(four).loc["GGO"]
    counts = ("images", "lesion_images", "false_alarm_images", "missed_images")
    assert [ggo[count] for count in counts] == [4, 2, 1, 1]
    assert [ggo[f"{score}_defined"] for score in SCORES] == [3, 3, 2, 2]
    assert ggo["iou_mean"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert ggo["recall_mean"] == pytest.approx((1 / 2 + 0) / 2)
    assert ggo["precision_mean"] == pytest.approx((1 + 0) / 2)
    assert ggo["f1_lesion_present_mean"] == pytest.approx((2 / 3 + 0) / 2)
    assert ggo["pooled_dice"] == pytest.approx(2 * 1 / (3 + 2))


def test_scores_of_an_absent_lesion_and_overall_are_undefined(four: pd.DataFrame) -> None:
    table = table_one(four)
    assert table.loc["CON", "iou_defined"] == 0
    undefined = ["iou_mean", "iou_std", "f1_lesion_present_mean", "pooled_dice"]
    assert table.loc["CON", undefined].isna().all()
    assert np.isnan(table.loc["Overall", "iou_mean"])


def test_pooled_dice_is_the_dice_of_all_pixels() -> None:
    truth, predicted = np.random.default_rng(1).integers(0, 4, (2, 5, 4, 4))
    whole = slice_scores(truth.reshape(1, 20, 4), predicted.reshape(1, 20, 4))
    table = table_one(slice_scores(truth, predicted))
    assert table.loc[whole["lesion"], "pooled_dice"].tolist() == pytest.approx(whole["f1"].tolist())


def test_every_patient_has_equal_weight(scores: pd.DataFrame) -> None:
    table = per_patient(scores)
    for lesion in ("GGO", "CON", "Background"):
        rows = scores[scores["lesion"] == lesion]
        for score in SCORES:
            patients = [rows[rows["patient"] == p][score].dropna() for p in set(rows["patient"])]
            means = [values.to_numpy().mean() for values in patients if len(values)]
            assert table.loc[lesion, f"{score}_mean"] == pytest.approx(np.mean(means))
            assert table.loc[lesion, f"{score}_std"] == pytest.approx(np.std(means))
            assert table.loc[lesion, f"{score}_defined"] == len(means)


def test_per_patient_by_hand(four: pd.DataFrame) -> None:
    ggo = per_patient(four).loc["GGO"]
    assert ggo["f1_defined"] == 1  # patient b has no slice on which F1 is defined
    assert ggo["f1_lesion_present_mean"] == pytest.approx(1 / 3)
    assert (ggo["averaged_over"], ggo["images"]) == ("patients", 4)


def test_with_one_slice_per_patient_both_tables_are_equal(scores: pd.DataFrame) -> None:
    alone = scores.assign(patient=scores["name"])
    pd.testing.assert_frame_equal(
        per_patient(alone).drop(columns="averaged_over"),
        table_one(alone).drop(columns="averaged_over"),
    )


def test_markdown_has_scores_and_counts_of_at_most_seven_columns() -> None:
    truth = np.array([[[2, 2, 3, 0]], [[2, 0, 0, 0]]])
    predicted = np.array([[[2, 0, 3, 0]], [[0, 0, 0, 0]]])
    scores, counts, text = to_markdown(table_one(slice_scores(truth, predicted))).split("\n\n")
    assert scores.splitlines()[0] == (
        "| Lesion | IoU | F1 | Recall | Precision | F1 (lesion present) | Dice (pooled) |"
    )
    ggo = "| GGO | .250 ± .250 | .333 ± .333 | .250 ± .250 | 1.000 ± .000 | .333 | .500 |"
    assert scores.splitlines()[2] == ggo
    overall = scores.splitlines()[5]
    assert overall.startswith("| Overall | .625 |")  # (.25 + 1 + (1/2 + 3/4) / 2) / 3
    assert scores.splitlines()[6].startswith("| Infection | .333 ± .333 |")  # 2 of 3 pixels, 0 of 1
    assert counts.splitlines()[2] == "| GGO | 2 | 2 | 0 | 1 | 2 / 2 / 1 |"
    assert counts.splitlines()[5] == "| Overall | 2 | – | – | – | – |"
    for table in (scores, counts):
        lines = table.splitlines()
        assert len(lines) == 7
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
        assert lines[0].count("|") <= 8
    assert text.startswith("Mean ± population standard deviation over images. A ratio 0/0")


def test_markdown_shows_undefined_as_a_dash(four: pd.DataFrame) -> None:
    scores, counts, _ = to_markdown(table_one(four)).split("\n\n")
    assert scores.splitlines()[3] == "| CON | – | – | – | – | – | – |"
    assert counts.splitlines()[3] == "| CON | 4 | 0 | 0 | 0 | 0 / 0 / 0 |"


def test_the_terminals_table_is_narrow_and_complete(
    four: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(four, tmp_path)
    for table in (table_one(four), pd.read_csv(tmp_path / "table.csv", index_col="lesion")):
        short = summary(table)
        assert len(short.head) == 7
        assert {len(row) for row in short.rows} == {7}
        assert [row[0] for row in short.rows] == list(table.index)
        ggo = dict(zip(short.head, short.rows[0], strict=True))
        assert ggo["IoU"] == ".167 ± .236"
        assert ggo["F1, lesion present"] == ".333"
        assert ggo["False alarms"] == "1 of 2"
        assert short.rows[3][-1] == "–"  # Overall
        short.print()
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines())) <= 100
        assert all(cell in printed for row in short.rows for cell in row)


def test_saved_files_are_read_back(four: pd.DataFrame, tmp_path: Path) -> None:
    directory = tmp_path / "new" / "results"
    info = {"command": "evaluate", "seed": np.int64(3), "weights": Path("a/b.pt"), "loss": np.nan}
    save(four, directory, None, **info)
    files = sorted(path.name for path in directory.iterdir())
    assert files == ["scores.csv", "table.csv", "table.json", "table.md"]

    pd.testing.assert_frame_equal(pd.read_csv(directory / "scores.csv", dtype={"name": str}), four)
    table = table_one(four)
    read = pd.read_csv(directory / "table.csv", index_col="lesion")
    np.testing.assert_allclose(read["iou_mean"], table["iou_mean"])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads((directory / "table.json").read_text(), parse_constant=refuse)
    assert document["info"] == {
        "command": "evaluate", "seed": 3, "weights": "a/b.pt", "loss": None
    }  # fmt: skip
    assert document["per_image"]["GGO"]["iou_mean"] == pytest.approx(1 / 6)
    assert document["per_image"]["GGO"]["iou_defined"] == 3
    assert document["per_image"]["CON"]["iou_mean"] is None
    assert document["per_image"]["Overall"]["missed_images"] is None
    assert document["per_patient"]["GGO"]["averaged_over"] == "patients"
    assert to_markdown(per_patient(four)) in (directory / "table.md").read_text(encoding="utf-8")


def test_without_patients_there_is_no_table_of_patients(tmp_path: Path) -> None:
    scores = slice_scores(np.ones((1, 1, 1), int), np.ones((1, 1, 1), int))
    with pytest.raises(ValueError, match="no patient"):
        per_patient(scores)
    save(scores, tmp_path)
    assert set(json.loads((tmp_path / "table.json").read_text())) == {"info", "per_image"}


def test_infection_alone_has_no_overall() -> None:
    scores = slice_scores(np.full((1, 2, 2), 2), np.full((1, 2, 2), 3), groups=["Infection"])
    table = table_one(scores)
    assert list(table.index) == ["Infection"]
    assert table.loc["Infection", "f1_mean"] == 1
    assert to_markdown(table).splitlines()[2].startswith("| Infection | 1.000 ± .000 |")


def test_wrong_scores_are_refused(four: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="scores lack f1"):
        table_one(four.drop(columns="f1"))
    with pytest.raises(ValueError, match="no scores; score at least one"):
        table_one(four.iloc[:0])
