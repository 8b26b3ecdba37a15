"""Calibration, temperature scaling and distances of outlines, against cases by hand."""

import math

import pytest
import torch

from pyro_stitchnet.metrics.calibration import (
    calibration,
    fit_temperature,
    reliability,
    tempered,
)
from pyro_stitchnet.metrics.distances import hausdorff95


def test_probabilities_equal_to_frequencies_have_no_calibration_error() -> None:
    truth = torch.ones(1, 10, 10, dtype=torch.long)
    truth[0, :3] = 2
    truth[0, 9] = 0  # background is left out
    p = torch.zeros(1, 4, 10, 10)
    p[:, 2] = 1 / 3
    values = calibration(p, truth)
    assert values["ece_ggo"] == pytest.approx(0, abs=1e-6)
    assert values["brier_ggo"] == pytest.approx(2 / 9)
    assert values["ece_con"] == values["brier_con"] == 0


def test_wrong_certainty_is_an_error_of_one() -> None:
    truth = torch.full((1, 4, 4), 3)
    p = torch.zeros(1, 4, 4, 4)
    p[:, 2] = 1
    assert calibration(p, truth) == {"ece_ggo": 1, "brier_ggo": 1, "ece_con": 1, "brier_con": 1}


def test_without_lung_calibration_is_nan() -> None:
    values = calibration(torch.rand(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    assert all(math.isnan(value) for value in values.values())


def test_distances_of_outlines() -> None:
    truth = torch.ones(2, 32, 32, dtype=torch.long)
    truth[0, 4:10, 4:10] = 2
    predicted = truth.clone()
    predicted[0] = truth[0].roll(3, 1)
    predicted[1, 1, 1] = 3
    distances = hausdorff95(truth, predicted)
    assert distances["GGO"][0] == pytest.approx(3)
    assert math.isnan(distances["GGO"][1])
    assert all(math.isnan(d) for d in distances["CON"])


def test_reliability_counts_the_lung_by_bins() -> None:
    truth = torch.tensor([[[0, 1, 2, 2]]])
    p = torch.zeros(1, 4, 1, 4)
    p[0, 2, 0] = torch.tensor([0.5, 0.01, 0.98, 0.96])
    table = reliability(p, truth)
    ggo = table[table["lesion"] == "GGO"].reset_index(drop=True)
    assert list(ggo["pixels"]) == [1] + [0] * 13 + [2]  # background is left out
    assert ggo["probability"][14] == pytest.approx(0.97)
    assert ggo["frequency"][14] == 1
    assert ggo["frequency"][0] == 0
    assert ggo["probability"][1:14].isna().all()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    """Labels sampled from probabilities, which are then raised to a known power."""
    logits = 2 * torch.randn(1, 4, 200, 200)
    logits[:, 0] = -30  # all is lung
    truth = torch.distributions.Categorical(logits=logits.movedim(1, -1)).sample()
    powered = (logits * temperature).softmax(1)  # the temperature inverts the power
    fitted = fit_temperature(powered, truth)
    assert fitted == pytest.approx(temperature, rel=0.05)
    scaled = tempered(powered, fitted)
    assert torch.allclose(scaled.sum(1), torch.ones(1, 200, 200), atol=1e-5)
    assert torch.equal(scaled.argmax(1), powered.argmax(1))
    if temperature != 1:
        before, after = (calibration(p, truth)["ece_ggo"] for p in (powered, scaled))
        assert after < before / 3


def test_a_temperature_needs_lung() -> None:
    with pytest.raises(ValueError, match="no pixel is lung"):
        fit_temperature(torch.rand(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))


def test_probabilities_of_one_are_tempered_too() -> None:
    p = torch.tensor([[[[1.0]], [[0.0]], [[0.0]], [[0.0]]]])
    assert tempered(p, 2.0).isfinite().all()
    assert tempered(p, 1e3)[0, 0, 0, 0] < 0.3
