"""Tests that need a GPU; skipped where there is none."""

from dataclasses import replace

import pytest
import torch

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import AtMean, segment
from pyro_stitchnet.presets import PRESETS, preset
from pyro_stitchnet.runtime.fabric import make_fabric
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.diagnostics import diagnose
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


@pytest.fixture(scope="module")
def slices() -> Slices:
    return phantom_slices([0, 1], 2, size=64)


@pytest.mark.parametrize("name", PRESETS)
def test_losses_agree_with_the_cpus(name: str, slices: Slices) -> None:
    """To a thousandth at z's mean, in evaluation mode: sums in another order, and TF32 is off."""
    chosen = preset(name)
    torch.manual_seed(0)
    net = checkpoint.build(chosen.model).eval()
    batch = TwoStreams(slices, slices, (2, 2), augment=False)[0]
    with torch.no_grad(), AtMean():
        cpu = bound(net, batch.x, batch.allowed, chosen.objective).loss
        net, batch = net.cuda(), batch.to("cuda")
        gpu = bound(net, batch.x, batch.allowed, chosen.objective).loss
    assert gpu.device.type == "cuda"
    assert float(gpu) == pytest.approx(float(cpu), rel=1e-3)


@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_trains_at_every_precision(precision: str, slices: Slices) -> None:
    torch.manual_seed(0)
    tiny = preset("tiny")
    net = StitchNet(tiny.model).cuda()
    learner = ElboLearner(net, replace(tiny.objective, kl_warmup=0))
    state = State(learner, tiny.optimiser, make_fabric("cuda", precision=precision))  # type: ignore[arg-type]
    batches = TwoStreams(slices, slices, (2, 2)).batches()
    train(state, batches, 60, validation=slices, log_every=10)
    losses = state.log["loss"].dropna()
    assert losses.iloc[-1] < losses.iloc[0] - 0.5
    assert next(net.parameters()).dtype == torch.float32


def test_metrics_and_segmentations_stay_on_the_gpu(slices: Slices) -> None:
    net = StitchNet(preset("tiny").model).cuda()
    answer = segment(net, slices.images.cuda())
    assert {t.device.type for t in (answer.probabilities, answer.styles, answer.stitched)} == {
        "cuda"
    }
    assert diagnose(net, TwoStreams(slices, None, (2, 0))[0].to("cuda"))["elbo/kl"] > 0
