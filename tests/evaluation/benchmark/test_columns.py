"""The scores of a tested model in its row."""

import json

import pandas as pd
import pytest

from pyro_stitchnet.evaluation.benchmark.columns import (
    by_patient,
    by_run,
    dice_by_patient,
    dice_columns,
)


@pytest.fixture
def scores() -> pd.DataFrame:
    """Patient a has three slices of GGO, one of them missed; b has consolidation, and no GGO."""
    return pd.DataFrame(
        {
            "patient": ["a", "a", "a", "b", "b", "b"],
            "lesion": ["GGO", "GGO", "CON", "CON", "GGO", "GGO"],
            "truth_pixels": [10, 30, 5, 10, 0, 0],
            "predicted_pixels": [10, 0, 5, 10, 2, 0],
            "common_pixels": [4, 0, 1, 8, 0, 0],
            "f1": [0.4, 0.0, 0.2, 0.8, 0.0, float("nan")],
            "hd95": [3.0, float("nan"), 1.0, 2.0, float("nan"), float("nan")],
        }
    )


def test_lesion_dice_is_over_slices_with_the_lesion_by_patient(scores: pd.DataFrame) -> None:
    assert dice_by_patient(scores).to_dict() == pytest.approx({"a": 0.2, "b": 0.8})


def test_columns_of_a_row(scores: pd.DataFrame) -> None:
    columns = dice_columns(scores)
    assert columns["dice_ggo"] == pytest.approx(0.4 / 3)
    assert columns["dice_ggo_present"] == pytest.approx(0.2)
    assert columns["dice_con_present"] == pytest.approx(0.5)
    assert columns["pooled_ggo"] == pytest.approx(8 / 52)
    assert columns["hd95_ggo"] == 3.0
    assert (columns["absent_ggo"], columns["false_alarms_ggo"]) == (2, 1)
    assert (columns["absent_con"], columns["false_alarms_con"]) == (0, 0)
    assert json.loads(columns["dice_by_patient"]) == {"a": 0.2, "b": 0.8}


def test_patients_are_averaged_over_the_runs_that_have_them() -> None:
    cells = [json.dumps({"a": 0.2, "b": 0.8}), json.dumps({"a": 0.4}), None]
    rows = pd.DataFrame({"folds": 3, "fold": 0, "seed": [1, 0, 2], "dice_by_patient": cells})
    runs = by_run(rows)
    assert list(runs.index) == [(3, 0, 0), (3, 0, 1)]
    assert runs["a"].tolist() == [0.4, 0.2]
    assert by_patient(rows).to_dict() == pytest.approx({"a": 0.3, "b": 0.8})
    assert by_patient(rows.iloc[2:]).empty
