"""Activations computed again give the same gradients and statistics, and are not kept."""

from dataclasses import replace

import pytest
import torch

from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.nn.blocks import Head
from pyro_stitchnet.model.nn.checkpointing import recomputed
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import PRESETS


@pytest.mark.parametrize("name", ["article", "guided"])
def test_it_changes_neither_gradients_nor_statistics(name: str) -> None:
    preset = PRESETS[name]
    x = torch.rand(2, 64, 64)
    states = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        net = StitchNet(replace(preset.model, checkpointing=checkpointing))
        loss = bound(net, x, objective=preset.objective).loss
        loss.backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        states.append([loss.detach(), *gradients, *net.buffers()])
    assert len(states[0]) == len(states[1])
    for kept, again in zip(*states, strict=True):
        torch.testing.assert_close(again, kept)


def test_the_activations_are_not_kept() -> None:
    head, x = Head(16, 8, 1), torch.rand(1, 16, 32, 32, requires_grad=True)
    saved = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        head(x)
        kept = len(saved)
        saved.clear()
        recomputed(head, x)
    assert len(saved) < kept / 4


def test_it_needs_no_gradient() -> None:
    head, x = Head(16, 8, 1).eval(), torch.rand(1, 16, 32, 32)
    with torch.no_grad():
        assert torch.equal(recomputed(head, x), head(x))
