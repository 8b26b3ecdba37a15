"""The SVAE alone in training: its loss, its metrics, and bits per dimension as its score."""

from dataclasses import replace

import pytest
import torch

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.posterior import seeded
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.svae_learner import SliceVAELearner
from pyro_stitchnet.training.validation import bits_per_dimension


@pytest.fixture(scope="module")
def learner() -> SliceVAELearner:
    torch.manual_seed(0)
    config = replace(preset("tiny-logistic").model, stitched=False)
    return SliceVAELearner(SliceVAE(config), preset("svae").objective)


def test_loss_and_metrics_ignore_labels(learner: SliceVAELearner, slices: Slices) -> None:
    x = slices.images[:2]
    batch = Batch(x, torch.nn.functional.one_hot(slices.labels()[:2], 4).bool())
    learner.eval()
    torch.manual_seed(1)
    output = learner.loss(batch, 1000)
    torch.manual_seed(1)
    expected = bound(learner.net, x, None, learner.objective)
    assert torch.equal(output.loss, expected.loss)
    metrics = learner.metrics(batch, output)
    assert set(metrics) == {"elbo/log_px", "elbo/kl", *(f"kl/z{n}" for n in range(1, 6))}
    assert metrics["elbo/log_px"] == pytest.approx(float(expected.log_px.mean()), rel=1e-5)
    assert metrics["elbo/kl"] == pytest.approx(float(sum(expected.kl.values())), rel=1e-5)
    with pytest.raises(ValueError, match="no labels"):
        learner.probabilities(x)


def test_the_score_is_minus_the_bits_per_dimension(
    learner: SliceVAELearner, slices: Slices
) -> None:
    learner.train()
    state = torch.get_rng_state()
    score, metrics = learner.validate(slices)
    assert torch.equal(state, torch.get_rng_state())
    assert learner.net.training
    with seeded(0, torch.device("cpu")):
        bits = bits_per_dimension(learner.net, slices.images)
    assert score == -metrics["validation/bits_per_dimension"] == -float(bits.mean())
    assert learner.validate(slices) == (score, metrics)
