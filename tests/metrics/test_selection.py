"""Uncertainty as a predictor of errors, on cases by hand."""

import math

import pytest
import torch

from pyro_stitchnet.metrics.selection import auroc, error_auroc, selective


def test_auroc_by_hand() -> None:
    scores = torch.tensor([0.1, 0.4, 0.4, 0.8])
    positive = torch.tensor([False, True, False, True])
    assert auroc(scores, positive) == (1 + 0.5 + 1 + 1) / 4  # pairs won, the tie counts half
    assert auroc(-scores, positive) == 1 - 3.5 / 4
    assert math.isnan(auroc(scores, torch.ones(4, dtype=torch.bool)))


def test_auroc_is_invariant_to_monotone_transforms() -> None:
    scores, positive = torch.rand(1000), torch.rand(1000) < 0.3
    assert auroc(scores, positive) == pytest.approx(auroc(scores.log(), positive))
    assert auroc(scores, positive) == pytest.approx(0.5, abs=0.08)


def test_error_auroc_of_all_pixels_and_of_the_lung() -> None:
    truth = torch.tensor([[[0, 0, 0, 1, 1, 2]]])
    predicted = torch.tensor([[[0, 0, 0, 1, 2, 2]]])
    uncertainty = torch.tensor([[[0.0, 0.0, 0.0, 0.9, 0.5, 0.1]]])
    assert error_auroc(uncertainty, predicted, truth) == {"all": 4 / 5, "lung": 1 / 2}


def test_leaving_out_uncertain_pixels_raises_dice() -> None:
    truth = torch.tensor([[[0, 1, 1, 2, 2, 3]]])
    predicted = torch.tensor([[[0, 1, 2, 2, 1, 2]]])
    uncertainty = torch.tensor([[[9.0, 0.1, 0.8, 0.2, 0.9, 0.3]]])
    table = selective(uncertainty, predicted, truth, coverages=(1.0, 0.6))
    assert list(table["dice"]) == [2 * 2 / (3 + 3), 1.0]  # consolidation labelled GGO is infection
    assert list(table["errors"]) == pytest.approx([3 / 5, 1 / 3])


def test_errors() -> None:
    lung = torch.ones(1, 2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="no pixel is lung"):
        selective(torch.rand(1, 2, 2), 0 * lung, 0 * lung)
    with pytest.raises(ValueError, match="coverages"):
        selective(torch.rand(1, 2, 2), lung, lung, coverages=(0.0,))
