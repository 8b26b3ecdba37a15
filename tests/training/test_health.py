"""Warnings: each for its own cause, and none without enough rows."""

import re

import pytest

from pyro_stitchnet.training.health import health_warnings

HEALTHY = {
    "elbo/kl": 1.0,
    "mode_gap": 0.01,
    **{f"active/z{n}": 0.3 for n in range(1, 6)},
    "style_gap/ggo-consolidation": 0.2,
    "unlabelled_style_gap/ggo-consolidation": 0.0,
    "labelled/ggo": 0.10,
    "predicted/ggo": 0.06,
}


@pytest.mark.parametrize(
    ("changed", "name", "message"),
    [
        ({"active/z2": 0.002}, "collapse/z2", "z2 holds almost no .*0.2%.*--free-bits"),
        ({"mode_gap": 1.3}, "mode_gap", "raises the loss by 1.30.*--norm group"),
        ({"mode_gap": float("nan")}, "mode_gap", "raises the loss by nan"),
        ({"style_gap/ggo-consolidation": 0.009}, "styles/ggo-consolidation", "are alike.*0.0090"),
        ({"predicted/ggo": 0.04}, "share/ggo", "ggo is predicted on 4.00%.*occurs on 10.00%"),
    ],
)
def test_each_warning_has_its_own_cause(changed: dict[str, float], name: str, message: str) -> None:
    assert health_warnings([HEALTHY] * 30) == {}
    problems = health_warnings([{**HEALTHY, **changed}] * 10)
    assert list(problems) == [name]
    assert re.search(message, problems[name])


def test_one_bad_batch_or_a_short_log_gives_no_warning() -> None:
    bad = {**HEALTHY, "predicted/ggo": 0.0}
    assert health_warnings([bad] * 9) == {}
    assert health_warnings([{"loss": 1.0}] * 30) == {}
    assert health_warnings([bad] * 5 + [HEALTHY] * 9 + [bad]) == {}
    assert "share/ggo" in health_warnings([HEALTHY] * 30 + [bad] * 10)


def test_the_log_of_a_model_without_labels_has_warnings_of_its_levels_only() -> None:
    row = {"elbo/kl": 1.0, "mode_gap": 0.0, **{f"active/z{n}": 0.1 for n in range(1, 6)}}
    assert health_warnings([row] * 10) == {}
    assert list(health_warnings([{**row, "active/z5": 0.0}] * 10)) == ["collapse/z5"]


def test_the_last_validation_counts_without_waiting_for_ten_rows() -> None:
    bad = {"loss": 1.0, "mode_gap": 1.0, "active/z1": 0.0}
    assert list(health_warnings([bad, {"loss": 1.0}])) == ["mode_gap", "collapse/z1"]
    assert health_warnings([bad, {"loss": 1.0, "mode_gap": 0.0, "active/z1": 0.5}]) == {}
