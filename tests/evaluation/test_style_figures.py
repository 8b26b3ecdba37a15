"""A model whose styles are one scores zero on all that tells styles apart; another does not."""

import pytest
import torch

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.evaluation.style_figures import STYLE_FIGURES, style_figures
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset


@pytest.fixture
def slices() -> Slices:
    return phantom_slices(range(2), 2, size=64)


@pytest.fixture
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("tiny").model)


def test_every_figure_is_told_and_the_model_is_left_as_it_was(
    net: StitchNet, slices: Slices
) -> None:
    net.train()
    found = style_figures(net, slices, samples=1)
    assert set(found) == set(STYLE_FIGURES)
    assert sum(found[f"share_{label}"] for label in LABELS) == pytest.approx(1)
    assert 0 < found["style_gap_least"] <= found["style_gap_mean"]
    assert found["segmentation_spread"] > 0
    assert net.training


@torch.no_grad()
def test_one_style_for_all_labels_shows_no_gap_and_no_drop(net: StitchNet, slices: Slices) -> None:
    places = len(LABELS)
    for k in range(2 * places):  # the maps of both parameters follow those of p(y | z)
        weight, bias = net._outputs(places + k)
        like, same = net._outputs(places * (1 + k // places))
        weight.copy_(like)
        bias.copy_(same)
    found = style_figures(net, slices, samples=1)
    for name in ("style_gap_mean", "style_gap_least", "label_drop"):
        assert found[name] == pytest.approx(0, abs=1e-6), name


def test_where_y_is_anchored_a_wrong_label_costs(net: StitchNet, slices: Slices) -> None:
    net.anchor(slices.images, torch.nn.functional.one_hot(slices.labels(), len(LABELS)).bool())
    assert style_figures(net, slices, samples=1)["label_drop"] > 0.3
