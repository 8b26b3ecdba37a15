"""A U-Net that denoises slices before it learns labels."""

import pytest
import torch

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.evaluation.baselines.denoising import Denoiser
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.presets import OptimiserConfig
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State


@pytest.fixture(scope="module")
def slices() -> Slices:
    return phantom_slices(range(4), 2, size=64)


def denoised(slices: Slices, *, pretrained: bool) -> tuple[UNet, UNet, list[float]]:
    """A network before and after 40 steps, and its losses."""
    torch.manual_seed(0)
    net = UNet()
    net.pretrained = pretrained
    before = UNet()
    before.load_state_dict(net.state_dict())
    state = State(Denoiser(net), OptimiserConfig(learning_rate=3e-3))
    streams = TwoStreams(slices.take([]), slices, (0, 4), seed=0)
    train(state, streams.batches(), 40, log_every=1)
    return before, net, [row["loss"] for row in state.rows]


@pytest.mark.parametrize("pretrained", [False, True])
def test_it_learns_the_noise_and_keeps_the_last_layer(slices: Slices, pretrained: bool) -> None:
    before, after, losses = denoised(slices, pretrained=pretrained)
    if not pretrained:  # random weights that are kept say too little of the slice
        assert losses[-1] < 0.8 * losses[0]
    torch.testing.assert_close(before.head[0].weight, after.head[0].weight, rtol=0, atol=0)
    encoder = zip(before.encoder.parameters(), after.encoder.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in encoder) == pretrained
