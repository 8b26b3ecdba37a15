"""The score that chooses weights: mean Dice of the lesions."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.labels import CONSOLIDATION, GGO
from pyro_stitchnet.training.validation import validation_dice

CPU = torch.device("cpu")


def predicting(labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()


def of_labels(labels: Tensor) -> Slices:
    names = [f"{i}.png" for i in range(len(labels))]
    return Slices(torch.zeros(labels.shape), (1 << labels).byte(), names, names)


def test_a_perfect_segmentation_scores_1(slices: Slices) -> None:
    score, metrics = validation_dice(predicting(slices.labels()), slices, CPU)
    assert score == metrics["validation/dice"] == 1
    assert metrics["validation/dice_ggo"] == metrics["validation/dice_consolidation"] == 1


def test_dice_by_hand() -> None:
    """GGO on 2 of 4 pixels and on 2 of another slice, consolidation missed."""
    truth, labels = torch.zeros(2, 32, 32).long(), torch.zeros(2, 32, 32).long()
    truth[0, 0, :4] = GGO
    labels[0, 0, 2:4] = GGO
    truth[1, 0, :2] = labels[1, 0, :2] = GGO
    truth[1, 1, :2] = CONSOLIDATION
    score, metrics = validation_dice(predicting(labels), of_labels(truth), CPU)
    assert metrics["validation/dice_ggo"] == pytest.approx((2 * 2 / 6 + 1) / 2)
    assert metrics["validation/dice_consolidation"] == 0
    assert score == pytest.approx(metrics["validation/dice_ggo"] / 2)


def test_a_lesion_on_no_slice_counts_as_0() -> None:
    truth = torch.zeros(1, 32, 32).long()
    truth[0, 0, :4] = GGO
    score, metrics = validation_dice(predicting(truth), of_labels(truth), CPU)
    assert score == 0.5
    assert metrics["validation/dice_consolidation"] != metrics["validation/dice_consolidation"]


def test_every_validation_has_the_same_draws(slices: Slices) -> None:
    draws = []

    def predict(x: Tensor) -> Tensor:
        draws.append(torch.rand(3))
        return torch.rand(len(x), 4, *x.shape[1:])

    state = torch.get_rng_state()
    assert validation_dice(predict, slices, CPU) == validation_dice(predict, slices, CPU)
    assert torch.equal(*draws)
    assert torch.equal(state, torch.get_rng_state())
