"""Lesions separated by brightness, inside a network's own mask."""

import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.baselines.brightness import splits
from pyro_stitchnet.evaluation.benchmark.methods import METHODS


def probabilities(x: Tensor) -> Tensor:
    """Label every pixel brighter than .3 GGO."""
    infected = (x > 0.3).float()
    return torch.stack([1 - 3 * infected, -infected, 3 * infected, infected], 1).softmax(1)


def slices() -> Slices:
    image, truth = torch.full((1, 32, 32), 0.1), torch.ones(1, 32, 32, dtype=torch.long)
    image[:, 4:14, 4:14], truth[:, 4:14, 4:14] = 0.35, 2
    image[:, 18:28, 18:28], truth[:, 18:28, 18:28] = 0.9, 3
    return Slices(image, (1 << truth).byte(), ["a"], ["a"])


def test_lesions_are_separated_and_the_infection_mask_is_unchanged() -> None:
    labelled = slices()
    truth = labelled.labels()
    predictors = splits(probabilities, labelled)
    assert tuple(predictors) == METHODS["unet"].predictors
    labels = {name: predict(labelled.images).argmax(1) for name, predict in predictors.items()}
    infected = probabilities(labelled.images).argmax(1) >= 2
    for name in ("threshold", "gaussian", "levels"):
        inner = (slice(None), slice(20, 26), slice(20, 26))  # away from the blurred edge
        assert (labels[name][inner] == 3).all()
        assert torch.equal(labels[name] >= 2, infected)
        assert (labels[name] == truth)[truth >= 2].float().mean() > 0.75


def test_without_both_lesions_there_is_no_split() -> None:
    labelled = slices()
    only = Slices(labelled.images, labelled.label_sets.clamp_max(4), ["a"], ["a"])
    assert splits(probabilities, only) == {}


def test_partially_labelled_slices_are_not_used_in_the_fit() -> None:
    whole = slices()
    both = Slices(
        torch.cat([whole.images, 1 - whole.images]),
        torch.cat([whole.label_sets, torch.full_like(whole.label_sets, 0b1100)]),
        ["a", "b"],
        ["a", "b"],
    )
    fitted = [splits(probabilities, labelled)["gaussian"] for labelled in (whole, both)]
    assert torch.equal(*(predict(whole.images) for predict in fitted))
