"""Compiled networks give the eager ones' loss, and every one of them is compiled."""

import pytest
import torch
import torch._dynamo

from pyro_stitchnet.model.objective import negative_elbo
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.step import compile_networks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's
@torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)
def test_compiled_networks_give_the_same_loss() -> None:
    torch._dynamo.reset()
    x = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net = StitchNet(preset("tiny").model)
        names = list(net.state_dict())
        if compiled:
            compile_networks(net, backend="eager")
        for train in (True, False):  # a step, and a validation
            net.train(train)
            loss = negative_elbo(net, x)
            loss.backward()
            losses.append(float(loss))
        assert list(net.state_dict()) == names
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-5)
    torch._dynamo.reset()
