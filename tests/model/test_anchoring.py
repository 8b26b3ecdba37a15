"""Anchored styles start at the grey values of their labels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.anchoring import output_layer
from pyro_stitchnet.model.likelihoods import FROM_MOMENTS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset

K = len(LABELS)


@pytest.mark.parametrize("likelihood", FROM_MOMENTS)
@pytest.mark.parametrize("heads", [{}, {"style_pool": 1}, {"style_pool": 1, "shared_heads": False}])
def test_styles_start_at_the_grey_values_of_their_labels(
    likelihood: str, heads: dict[str, Any], one_hot: Callable[[Tensor], Tensor]
) -> None:
    """With two heads, with one or with nine; a label without pixels keeps its random weights."""
    torch.manual_seed(0)
    config = replace(preset("guided").model, likelihood=likelihood, **heads)  # type: ignore[arg-type]
    net = StitchNet(config).eval()
    means = torch.tensor([0.05, 0.2, 0.5, 0.8])
    y = torch.randint(K - 1, (4, 64, 64))
    x = (means[y] + 0.03 * torch.randn(y.shape)).clamp(0, 1)
    before = [parameter.clone() for parameter in output_layer(net.heads, K + 3)]
    net.anchor(x, one_hot(y))
    with torch.no_grad():
        styles = net.picture(net.guide(x)).styles
    assert torch.allclose(styles.mean[..., :3].mean((0, 1, 2)), means[:3], atol=0.06)
    for old, new in zip(before, output_layer(net.heads, K + 3), strict=True):
        assert torch.equal(old, new)
    scores = styles.log_prob(x[..., None])
    assert (scores[..., :3].argmax(-1) == y).float().mean() > 0.95


def test_partial_labels_are_ignored(one_hot: Callable[[Tensor], Tensor]) -> None:
    net = StitchNet(preset("guided").model)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    allowed = torch.ones(1, 64, 64, K, dtype=torch.bool)
    allowed[..., 0] = False
    net.anchor(torch.rand(1, 64, 64), allowed)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_likelihoods_without_moments_cannot_be_anchored(
    one_hot: Callable[[Tensor], Tensor], shared_net: Callable[[str], StitchNet]
) -> None:
    x = torch.rand(1, 64, 64)
    with pytest.raises(ValueError, match="bounded-beta"):
        shared_net("article").anchor(x, one_hot(torch.zeros(x.shape, dtype=torch.long)))
