"""A model with one style for all labels has style metrics of zero; another model has not."""

import pytest
import torch

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.evaluation.style_metrics import STYLE_METRICS, style_metrics
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.anchoring import output_layer
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset


@pytest.fixture
def slices() -> Slices:
    return phantom_slices(range(2), 2, size=64)


@pytest.fixture
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("tiny").model)


def test_every_metric_is_returned_and_the_mode_of_the_model_is_restored(
    net: StitchNet, slices: Slices
) -> None:
    net.train()
    metrics = style_metrics(net, slices)
    assert set(metrics) == set(STYLE_METRICS)
    assert sum(metrics[f"share_{label}"] for label in LABELS) == pytest.approx(1)
    assert 0 < metrics["style_gap_least"] <= metrics["style_gap_mean"]
    assert metrics["segmentation_spread"] > 0
    assert net.training


@torch.no_grad()
def test_one_style_for_all_labels_shows_no_gap_and_no_drop(net: StitchNet, slices: Slices) -> None:
    n = len(LABELS)
    for k in range(2 * n):  # the maps of both parameters follow those of p(y | z)
        weight, bias = output_layer(net.heads, n + k)
        first_weight, first_bias = output_layer(net.heads, n * (1 + k // n))
        weight.copy_(first_weight)
        bias.copy_(first_bias)
    metrics = style_metrics(net, slices)
    for name in ("style_gap_mean", "style_gap_least", "label_drop"):
        assert metrics[name] == pytest.approx(0, abs=1e-6), name


def test_a_wrong_label_lowers_the_likelihood_of_anchored_styles(
    net: StitchNet, slices: Slices
) -> None:
    net.anchor(slices.images, torch.nn.functional.one_hot(slices.labels(), len(LABELS)).bool())
    assert style_metrics(net, slices)["label_drop"] > 0.3
