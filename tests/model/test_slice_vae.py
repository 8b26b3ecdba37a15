"""The SVAE alone and the ladder VAE: programs, parameters, bits per dimension, learning."""

import math
from dataclasses import replace

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.label_terms import Marginal
from pyro_stitchnet.model.likelihoods import GREY_LEVELS
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import from_prior, log_evidence, probabilities
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.validation import bits_per_dimension

SMALL = replace(preset("tiny-logistic").model, stitched=False)


def new(config: ModelConfig = SMALL) -> SliceVAE:
    torch.manual_seed(0)
    return SliceVAE(config).eval()


@pytest.fixture(scope="module")
def net() -> SliceVAE:
    return new()


@pytest.fixture
def x() -> Tensor:
    """Slices of 8-bit grey levels."""
    return torch.randint(GREY_LEVELS, (2, 64, 64)) / (GREY_LEVELS - 1)


def sites(trace: poutine.Trace) -> list[str]:
    return [name for name in trace.stochastic_nodes if name[0] in "xyz"]


# --- Model and guide ------------------------------------------------------------------------------


def test_the_model_draws_slices_of_grey_levels(net: SliceVAE) -> None:
    with torch.no_grad():
        trace = poutine.trace(net.model).get_trace(None, shape=(3, 32, 64))
    drawn = trace.nodes["x"]["value"]
    assert drawn.shape == (3, 32, 64)
    levels = drawn * (GREY_LEVELS - 1)
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    assert sites(trace) == ["z5", "z4", "z3", "z2", "z1", "x"]
    with pytest.raises(ValueError, match="shape="):
        net.model(None)
    with pytest.raises(ValueError, match="96 or 128"):
        net.model(torch.rand(1, 100, 64))


def test_the_guide_draws_every_level(net: SliceVAE, x: Tensor) -> None:
    with torch.no_grad():
        trace = poutine.trace(net.guide).get_trace(x)
    assert sites(trace) == ["z5", "z4", "z3", "z2", "z1"]
    assert torch.equal(trace.nodes["_RETURN"]["value"], trace.nodes["z1"]["value"])


def test_the_bound_by_hand(net: SliceVAE, x: Tensor) -> None:
    """-log p(x | z) + log q(z | x) - log p(z) per pixel, of one draw."""
    torch.manual_seed(1)
    result = bound(net, x)
    torch.manual_seed(1)
    with torch.no_grad():
        guide = poutine.trace(net.guide).get_trace(x)
        total = net.picture(guide.nodes["z1"]["value"]).log_prob(x).sum()
        for level in range(5, 0, -1):
            z, q = (guide.nodes[f"z{level}"][part] for part in ("value", "fn"))
            prior = (
                net.svae.prior(level, guide.nodes[f"z{level + 1}"]["value"])
                if level < 5
                else torch.distributions.Normal(torch.zeros(()), torch.ones(()))
            )
            total = total + prior.log_prob(z[:, 0, 0]).sum() - q.log_prob(z).sum()
    assert result.loss.item() == pytest.approx(float(-total) / x.numel(), abs=1e-5)
    torch.testing.assert_close(
        result.log_px, net.picture(result.z1).log_prob(x).detach(), rtol=1e-5, atol=1e-5
    )
    assert not result.log_py.any()


def test_every_parameter_gets_a_finite_gradient(x: Tensor) -> None:
    for shared in (True, False):
        net = new(replace(SMALL, shared_crush=shared)).train()
        bound(net, x).loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_in_half_precision_the_bound_is_float32(net: SliceVAE, x: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        result = bound(net, x)
    assert result.loss.dtype == result.log_px.dtype == torch.float32
    assert result.loss.isfinite()


def test_labels_are_refused_or_absent(net: SliceVAE, x: Tensor) -> None:
    assert net.classifier is None
    with pytest.raises(ValueError, match="cannot be conditioned on y"):
        poutine.condition(net.model, {"y": x.long()})(x)
    with pytest.raises(ValueError, match="no labels"):
        probabilities(net, x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no labels"):
        from_prior(net, 1, (64, 64))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bounded-beta"):
        SliceVAE(replace(SMALL, likelihood="gaussian"))  # type: ignore[arg-type]


# --- SVAE and ladder VAE --------------------------------------------------------------------------


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_lvae_has_four_more_mappings_than_the_svae() -> None:
    with torch.device("meta"):
        svae, lvae = (SliceVAE(preset(name).model) for name in ("svae", "lvae"))
    assert lvae.svae.prior_crush is not None
    assert len(lvae.svae.prior_crush) == 4
    own = parameters(lvae.svae.prior_crush)
    assert own == parameters(svae.svae.crush[:4])
    assert parameters(lvae) == parameters(svae) + own
    assert preset("lvae").objective == preset("svae").objective
    assert preset("lvae").optimiser == preset("svae").optimiser


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("training", [True, False])
def test_a_ladder_vae_with_the_svaes_weights_gives_the_same_bits(
    norm: str, training: bool, x: Tensor
) -> None:
    config = replace(SMALL, norm=norm)  # type: ignore[arg-type]
    svae, lvae = new(config), new(replace(config, shared_crush=False))
    weights = svae.state_dict()
    copies = {
        name.replace("svae.crush.", "svae.prior_crush."): value
        for name, value in weights.items()
        if name.startswith("svae.crush.") and not name.startswith("svae.crush.4.")
    }
    lvae.load_state_dict({**weights, **copies})
    losses = []
    for net in (svae.train(training), lvae.train(training)):
        torch.manual_seed(1)
        losses.append(bound(net, x).loss)
    assert torch.equal(*losses)


# --- Bits per dimension ---------------------------------------------------------------------------


def test_bits_per_dimension_by_hand_with_one_draw(net: SliceVAE, x: Tensor) -> None:
    """Minus the evidence bound of each slice over its pixels, in bits."""
    torch.manual_seed(1)
    bits = bits_per_dimension(net, x)
    torch.manual_seed(1)
    loss = bound(net, x).loss.item()
    assert bits.shape == (2,)
    assert float(bits.mean()) == pytest.approx(loss / math.log(2), rel=1e-4)
    assert bits_per_dimension(net, x, samples=4).shape == (2,)


def test_bits_per_dimension_of_a_uniform_model_are_8(
    net: SliceVAE, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that ignores z, and an encoder without information: log2 of 256 levels."""

    class Uniform(pyro.distributions.Normal):
        def log_prob(self, value: Tensor) -> Tensor:
            return torch.full_like(value, -math.log(GREY_LEVELS))

    flat = Uniform(torch.zeros(x.shape), 1.0)
    monkeypatch.setattr(net, "picture", lambda z1: flat)
    monkeypatch.setattr("pyro_stitchnet.model.svae.product_of_normals", lambda q, prior: prior)
    monkeypatch.setattr(net.svae, "bottom_up", lambda x: [standard(x, 2**n) for n in range(1, 6)])
    torch.testing.assert_close(bits_per_dimension(net, x), torch.full((2,), 8.0))


def standard(x: Tensor, stride: int) -> pyro.distributions.Normal:
    zero = torch.zeros(len(x), 1, x.shape[1] // stride, x.shape[2] // stride)
    return pyro.distributions.Normal(zero, 1.0)


def test_more_draws_bound_more_tightly(net: SliceVAE, x: Tensor) -> None:
    one = torch.stack([log_evidence(net, x, 1) for _ in range(6)]).mean()
    assert log_evidence(net, x, 6).mean() > one


def test_densities_have_no_bits_per_dimension(x: Tensor) -> None:
    with pytest.raises(ValueError, match="need likelihood 'discretised-logistic'"):
        bits_per_dimension(SliceVAE(replace(SMALL, likelihood="beta")), x)


def test_a_stitchnet_with_labels_summed_out_has_bits_per_dimension(x: Tensor) -> None:
    net = StitchNet(preset("tiny-logistic").model).eval()
    torch.manual_seed(1)
    bits = bits_per_dimension(net, x)
    torch.manual_seed(1)
    loss = bound(net, x, None, Objective(Marginal())).loss.item()
    assert float(bits.mean()) == pytest.approx(loss / math.log(2), rel=1e-4)


@pytest.mark.slow
def test_bits_per_dimension_fall_in_training() -> None:
    images = phantom_slices([0], 2, size=64).images
    net = new().train()
    adam = torch.optim.Adam(net.parameters(), 5e-3)
    before = float(bits_per_dimension(net, images).mean())
    for _ in range(12):
        adam.zero_grad()
        bound(net, images).loss.backward()
        adam.step()
    assert float(bits_per_dimension(net, images).mean()) < before - 1
