"""Coverage of intervals, pairing by patient, and Holm's correction by hand."""

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


def test_one_value_has_no_interval() -> None:
    assert np.isnan(interval([1.0])).all()


def test_patients_are_paired_by_name_and_unpaired_ones_are_left_out() -> None:
    one = pd.Series({"a": 0.5, "b": 0.7, "c": 0.9, "x": 0.0})
    other = pd.Series({"c": 0.8, "b": 0.6, "a": 0.4, "y": 1.0})
    result = paired(one, other)
    assert result["patients"] == 3
    assert result["difference"] == pytest.approx(0.1)
    assert result["low"] == pytest.approx(0.1)
    assert result["p"] == pytest.approx(0.25)  # three differences of one sign: 2 / 2^3


def test_a_method_does_not_differ_from_itself() -> None:
    same = pd.Series({"a": 0.5, "b": 0.7})
    assert paired(same, same)["p"] == 1


def test_holm() -> None:
    """By hand: 3 * .01, 2 * .02, and 1 * .03 raised to the one before it."""
    assert holm({"c": 0.03, "a": 0.01, "b": 0.02}) == pytest.approx(
        {"a": 0.03, "b": 0.04, "c": 0.04}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
