"""Lesions told apart by brightness, inside a network's own mask."""

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.baselines.brightness import SplitByBrightness


class Blind(nn.Module):
    """Sees an infection wherever it is brighter than .3, and calls all of it GGO."""

    def forward(self, x: Tensor) -> Tensor:
        infected = (x[:, 0] > 0.3).float()
        return torch.stack([1 - 3 * infected, -infected, 3 * infected, infected], 1)


def slices() -> Slices:
    image, truth = torch.full((1, 32, 32), 0.1), torch.ones(1, 32, 32, dtype=torch.long)
    image[:, 4:14, 4:14], truth[:, 4:14, 4:14] = 0.5, 2
    image[:, 18:28, 18:28], truth[:, 18:28, 18:28] = 0.9, 3
    return Slices(image, (1 << truth).byte(), ["a"], ["a"])


def test_the_split_is_right_and_the_mask_is_the_networks() -> None:
    labelled = slices()
    truth = labelled.labels()
    readings = SplitByBrightness(Blind()).readings(labelled)
    assert list(readings) == ["", "threshold", "gaussian"]
    answers = {name: read(labelled.images).argmax(1) for name, read in readings.items()}
    assert not (answers[""] == 3).any()
    for name in ("threshold", "gaussian"):
        inner = (slice(None), slice(20, 26), slice(20, 26))  # away from the blurred edge
        assert (answers[name][inner] == 3).all()
        assert torch.equal(answers[name] >= 2, answers[""] >= 2)
        assert (answers[name] == truth)[truth >= 2].float().mean() > 0.75


def test_without_both_lesions_there_is_nothing_to_split_by() -> None:
    labelled = slices()
    only = Slices(labelled.images, labelled.label_sets.clamp_max(4), ["a"], ["a"])
    assert list(SplitByBrightness(Blind()).readings(only)) == [""]


def test_slices_with_sets_of_labels_are_not_fitted_to() -> None:
    whole = slices()
    both = Slices(
        torch.cat([whole.images, 1 - whole.images]),
        torch.cat([whole.label_sets, torch.full_like(whole.label_sets, 0b1100)]),
        ["a", "b"],
        ["a", "b"],
    )
    answers = [
        SplitByBrightness(Blind()).readings(labelled)["gaussian"](whole.images)
        for labelled in (whole, both)
    ]
    assert torch.equal(*answers)
