"""Calibration, its mending, and distances of outlines, against cases done by hand."""

import math

import pytest
import torch

from pyro_stitchnet.evaluation.metrics.calibration import (
    calibration,
    fit_temperature,
    reliability,
    tempered,
)
from pyro_stitchnet.evaluation.metrics.distances import hausdorff95


def test_frequencies_as_promised_have_no_calibration_error() -> None:
    truth = torch.ones(1, 10, 10, dtype=torch.long)
    truth[0, :3] = 2
    truth[0, 9] = 0  # background does not count
    p = torch.zeros(1, 4, 10, 10)
    p[:, 2] = 1 / 3
    figures = calibration(p, truth)
    assert figures["ece_ggo"] == pytest.approx(0, abs=1e-6)
    assert figures["brier_ggo"] == pytest.approx(2 / 9)
    assert figures["ece_con"] == figures["brier_con"] == 0


def test_false_certainty_is_an_error_of_one() -> None:
    truth = torch.full((1, 4, 4), 3)
    p = torch.zeros(1, 4, 4, 4)
    p[:, 2] = 1
    assert calibration(p, truth) == {"ece_ggo": 1, "brier_ggo": 1, "ece_con": 1, "brier_con": 1}


def test_no_lung_no_figure() -> None:
    figures = calibration(torch.rand(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    assert all(math.isnan(value) for value in figures.values())


def test_distances_of_outlines() -> None:
    truth = torch.ones(2, 32, 32, dtype=torch.long)
    truth[0, 4:10, 4:10] = 2
    predicted = truth.clone()
    predicted[0] = truth[0].roll(3, 1)
    predicted[1, 1, 1] = 3
    found = hausdorff95(truth, predicted)
    assert found["GGO"][0] == pytest.approx(3)
    assert math.isnan(found["GGO"][1])
    assert all(math.isnan(d) for d in found["CON"])


def test_reliability_counts_the_lung_by_bins() -> None:
    truth = torch.tensor([[[0, 1, 2, 2]]])
    p = torch.zeros(1, 4, 1, 4)
    p[0, 2, 0] = torch.tensor([0.5, 0.01, 0.98, 0.96])
    table = reliability(p, truth)
    ggo = table[table["lesion"] == "GGO"].reset_index(drop=True)
    assert list(ggo["pixels"]) == [1] + [0] * 13 + [2]  # the background counts nowhere
    assert ggo["said"][14] == pytest.approx(0.97)
    assert ggo["found"][14] == 1
    assert ggo["found"][0] == 0
    assert ggo["said"][1:14].isna().all()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_overconfidence_is_found(temperature: float) -> None:
    """Labels drawn from probabilities, which are then sharpened or flattened by a known power."""
    logits = 2 * torch.randn(1, 4, 200, 200)
    logits[:, 0] = -30  # all is lung
    truth = torch.distributions.Categorical(logits=logits.movedim(1, -1)).sample()
    said = (logits * temperature).softmax(1)  # the temperature undoes it
    found = fit_temperature(said, truth)
    assert found == pytest.approx(temperature, rel=0.05)
    mended = tempered(said, found)
    assert torch.allclose(mended.sum(1), torch.ones(1, 200, 200), atol=1e-5)
    assert torch.equal(mended.argmax(1), said.argmax(1))
    if temperature != 1:
        before, after = (calibration(p, truth)["ece_ggo"] for p in (said, mended))
        assert after < before / 3


def test_a_temperature_needs_lung() -> None:
    with pytest.raises(ValueError, match="no pixel is lung"):
        fit_temperature(torch.rand(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))


def test_certainty_is_tempered_too() -> None:
    p = torch.tensor([[[[1.0]], [[0.0]], [[0.0]], [[0.0]]]])
    assert tempered(p, 2.0).isfinite().all()
    assert tempered(p, 1e3)[0, 0, 0, 0] < 0.3
