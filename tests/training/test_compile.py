"""Compiled networks give the loss of the eager ones, and every one of them is compiled."""

from dataclasses import replace

import pytest
import torch
import torch._dynamo

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.checkpoint import build
from pyro_stitchnet.training.run import learner_of
from pyro_stitchnet.training.step import compile_networks


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's
@torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)
def test_compiled_networks_give_the_same_loss() -> None:
    torch._dynamo.reset()
    tiny = preset("tiny")
    batch = Batch(torch.rand(2, 64, 64), torch.ones(2, 64, 64, 4, dtype=torch.bool))
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        learner = learner_of(build(tiny.model), tiny.objective)
        names = list(learner.state_dict())
        if compiled:
            compile_networks(learner.networks(), backend="eager")
        for train in (True, False):  # a step, and a validation
            learner.train(train)
            loss = learner.loss(batch, 1000).loss
            loss.backward()
            losses.append(float(loss))
        assert list(learner.state_dict()) == names
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-5)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["guided", "article", "lvae"])
def test_the_networks_of_a_learner_are_all_of_its_model(name: str) -> None:
    """Without overlap, so that each weight is compiled once."""
    chosen = preset(name)
    with torch.device("meta"):
        net = build(replace(chosen.model, weights=None))
    parameters = [p for network in learner_of(net, chosen.objective).networks()
                  for p in network.parameters()]  # fmt: skip
    assert len(parameters) == len(set(parameters))
    assert set(parameters) == set(net.parameters())
