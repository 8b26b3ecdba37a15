"""Folding changes no result beyond rounding."""

from copy import deepcopy

import torch
from torch import nn

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import probabilities
from pyro_stitchnet.posterior.folding import folded


def test_a_folded_classifier_gives_the_same_probabilities(guided: StitchNet) -> None:
    net = deepcopy(guided).eval()
    torch.manual_seed(0)
    for name, buffer in net.named_buffers():  # statistics unlike those of a new one
        if name.endswith("running_mean"):
            buffer.uniform_(-0.2, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    x = torch.rand(2, 64, 64)
    before = probabilities(net, x)
    after = probabilities(folded(net), x)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)
    assert net.classifier is not None
    assert not any(isinstance(one, nn.BatchNorm2d) for one in net.classifier.modules())


def test_a_model_without_a_classifier_stays_as_it_is(tiny: StitchNet) -> None:
    net = deepcopy(tiny)
    assert folded(net).state_dict().keys() == tiny.state_dict().keys()
