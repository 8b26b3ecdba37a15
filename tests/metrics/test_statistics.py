"""Coverage of intervals, pairing by run and patient, and Holm's correction by hand."""

import numpy as np
import pandas as pd
import pytest

from pyro_stitchnet.metrics.statistics import holm, interval, paired


def test_the_interval_covers_the_mean_at_about_its_level() -> None:
    rng = np.random.default_rng(0)
    covered = [
        low < 0 < high for low, high in (interval(rng.normal(size=30).tolist()) for _ in range(200))
    ]
    assert 0.88 < np.mean(covered) < 0.99


def test_the_interval_contains_the_variance_between_runs() -> None:
    """With effects of patients and of runs, half of the scores missing, it rarely misses the mean.

    An interval over the patients' means alone, which leaves out the runs, misses it often.
    """
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        scores = rng.normal(size=(1, 30)) + rng.normal(size=(8, 1))
        scores[rng.random(scores.shape) < 0.5] = np.nan
        intervals = [interval(scores), interval(np.nanmean(scores[:, ~np.isnan(scores).all(0)], 0))]
        covered.append([low < 0 < high for low, high in intervals])
    both, patients = np.mean(covered, 0)
    assert 0.85 < both < 0.99
    assert patients < 0.75


@pytest.mark.parametrize("values", [[1.0], [[1.0, np.nan], [2.0, np.nan]]])
def test_one_patient_has_no_interval(values: list[float]) -> None:
    assert np.isnan(interval(values)).all()


def test_patients_are_paired_by_name_and_unpaired_ones_are_left_out() -> None:
    one = pd.Series({"a": 0.5, "b": 0.7, "c": 0.9, "x": 0.0})
    other = pd.Series({"c": 0.8, "b": 0.6, "a": 0.4, "y": 1.0})
    result = paired(one, other)
    assert result["patients"] == 3
    assert result["difference"] == pytest.approx(0.1)
    assert result["low"] == pytest.approx(0.1)
    assert result["p"] == pytest.approx(0.25)  # three differences of one sign: 2 / 2^3


def test_runs_are_paired_by_name_and_unpaired_ones_are_left_out() -> None:
    one = pd.DataFrame({"a": [0.5, 0.7], "b": [0.4, np.nan]}, index=["first", "second"])
    other = pd.DataFrame({"b": [0.3, 0.9], "a": [0.1, 0.9]}, index=["first", "third"])
    result = paired(one, other)
    assert result["patients"] == 2
    assert result["difference"] == pytest.approx((0.4 + 0.1) / 2)


def test_without_a_common_run_there_is_no_difference() -> None:
    one, other = (pd.DataFrame({"a": [0.5]}, index=[name]) for name in ("first", "second"))
    result = paired(one, other)
    assert result["patients"] == 0
    assert np.isnan(result["difference"])


def test_a_method_does_not_differ_from_itself() -> None:
    same = pd.Series({"a": 0.5, "b": 0.7})
    assert paired(same, same)["p"] == 1


def test_holm() -> None:
    """By hand: 3 * .01, 2 * .02, and 1 * .03 raised to the one before it."""
    assert holm({"c": 0.03, "a": 0.01, "b": 0.02}) == pytest.approx(
        {"a": 0.03, "b": 0.04, "c": 0.04}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
