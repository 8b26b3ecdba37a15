"""Lesions separated by brightness, inside a network's own mask."""

import torch
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.baselines.brightness import SplitByBrightness


class OnlyGGO(nn.Module):
    """Labels every pixel brighter than .3 GGO."""

    def forward(self, x: Tensor) -> Tensor:
        infected = (x[:, 0] > 0.3).float()
        return torch.stack([1 - 3 * infected, -infected, 3 * infected, infected], 1)


def slices() -> Slices:
    image, truth = torch.full((1, 32, 32), 0.1), torch.ones(1, 32, 32, dtype=torch.long)
    image[:, 4:14, 4:14], truth[:, 4:14, 4:14] = 0.35, 2
    image[:, 18:28, 18:28], truth[:, 18:28, 18:28] = 0.9, 3
    return Slices(image, (1 << truth).byte(), ["a"], ["a"])


def test_lesions_are_separated_and_the_infection_mask_is_unchanged() -> None:
    labelled = slices()
    truth = labelled.labels()
    predictors = SplitByBrightness(OnlyGGO()).predictors(labelled)
    assert list(predictors) == ["", "threshold", "gaussian", "levels"]
    labels = {name: predict(labelled.images).argmax(1) for name, predict in predictors.items()}
    assert not (labels[""] == 3).any()
    for name in ("threshold", "gaussian", "levels"):
        inner = (slice(None), slice(20, 26), slice(20, 26))  # away from the blurred edge
        assert (labels[name][inner] == 3).all()
        assert torch.equal(labels[name] >= 2, labels[""] >= 2)
        assert (labels[name] == truth)[truth >= 2].float().mean() > 0.75


def test_without_both_lesions_there_is_only_the_network() -> None:
    labelled = slices()
    only = Slices(labelled.images, labelled.label_sets.clamp_max(4), ["a"], ["a"])
    assert list(SplitByBrightness(OnlyGGO()).predictors(only)) == [""]


def test_partially_labelled_slices_are_not_used_in_the_fit() -> None:
    whole = slices()
    both = Slices(
        torch.cat([whole.images, 1 - whole.images]),
        torch.cat([whole.label_sets, torch.full_like(whole.label_sets, 0b1100)]),
        ["a", "b"],
        ["a", "b"],
    )
    probabilities = [
        SplitByBrightness(OnlyGGO()).predictors(labelled)["gaussian"](whole.images)
        for labelled in (whole, both)
    ]
    assert torch.equal(*probabilities)
