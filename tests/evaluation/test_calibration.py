"""Calibration of lesion probabilities, and distances of outlines, against cases done by hand."""

import math

import pytest
import torch

from pyro_stitchnet.evaluation.calibration import calibration
from pyro_stitchnet.evaluation.distances import hausdorff95


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
