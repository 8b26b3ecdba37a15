"""Bounds on log p(x) against Pyro's, active units and the predictive check against known cases."""

from collections.abc import Callable
from dataclasses import replace

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import Tensor

from pyro_stitchnet.labels import GGO
from pyro_stitchnet.model.label_terms import Marginal
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import (
    active_units,
    grey_check,
    likelihood_ratio,
    log_evidence,
    log_weights,
    unusual,
)
from pyro_stitchnet.presets import preset

MARGINAL = Objective(Marginal())


@pytest.fixture(params=["tiny", "guided"])
def net(request: pytest.FixtureRequest, shared_net: Callable[[str], StitchNet]) -> StitchNet:
    return shared_net(request.param).eval()


@pytest.fixture(scope="module")
def svae() -> SliceVAE:
    torch.manual_seed(0)
    return SliceVAE(replace(preset("tiny-logistic").model, stitched=False)).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 64, 64)


def test_the_mean_weight_is_pyros_elbo(net: StitchNet, x: Tensor) -> None:
    elbo = Trace_ELBO(max_plate_nesting=3)
    torch.manual_seed(1)
    expected = [-elbo.loss(net.model, net.guide, x, None, MARGINAL) for _ in range(4)]
    torch.manual_seed(1)
    weights = log_weights(net, x, 4, batch_size=3)
    assert weights.shape == (4, 3)
    torch.testing.assert_close(weights.sum(1), torch.tensor(expected), rtol=1e-4, atol=0.5)


def test_the_mean_weight_of_an_svae_is_pyros_elbo(svae: SliceVAE, x: Tensor) -> None:
    elbo = Trace_ELBO(max_plate_nesting=3)
    torch.manual_seed(1)
    expected = [-elbo.loss(svae.model, svae.guide, x) for _ in range(2)]
    torch.manual_seed(1)
    weights = log_weights(svae, x, 2, batch_size=3)
    torch.testing.assert_close(weights.sum(1), torch.tensor(expected), rtol=1e-4, atol=0.5)
    assert likelihood_ratio(svae, x, samples=1).isfinite().all()
    assert set(active_units(svae, x)) == {1, 2, 3, 4, 5}


def test_the_bound_is_pyros_renyi_bound_of_order_0(net: StitchNet, x: Tensor) -> None:
    elbo = RenyiELBO(alpha=0, num_particles=5, max_plate_nesting=3, vectorize_particles=False)
    torch.manual_seed(1)
    expected = -elbo.loss(net.model, net.guide, x[:1], None, MARGINAL)
    torch.manual_seed(1)
    assert log_evidence(net, x[:1], 5).item() == pytest.approx(expected, rel=1e-4, abs=0.5)


def test_the_bound_is_above_the_mean_weight(tiny: StitchNet, x: Tensor) -> None:
    """log 1/S SUM_s w_s, which is at least the mean of log w_s."""
    torch.manual_seed(1)
    weights = log_weights(tiny, x, 6)
    torch.manual_seed(1)
    evidence = log_evidence(tiny, x, 6)
    best = weights.amax(0)
    expected = best + (weights - best).exp().mean(0).log()
    torch.testing.assert_close(evidence, expected, rtol=1e-5, atol=0.1)
    assert (evidence > weights.mean(0)).all()


def test_batches_do_not_mix_slices(net: StitchNet, x: Tensor) -> None:
    """A slice's weight does not depend on the others, except for rounding."""
    twice = x[:1].repeat(2, 1, 1)
    weights = log_weights(net, torch.cat([twice, x[1:2]]), 8, batch_size=3).mean(0)
    spread = weights[0] - weights[1]
    assert spread.abs() < 0.1 * weights.abs().max()
    assert torch.allclose(weights[2], log_weights(net, x[1:2], 8).mean(), rtol=0.05)


def test_the_likelihood_ratio_by_hand(tiny: StitchNet, x: Tensor) -> None:
    """With z1 from the prior its two log-probabilities cancel: those of z2 ... z5 and x remain."""
    net = tiny.eval()
    torch.manual_seed(2)
    whole = log_weights(net, x, 2).mean(0)
    coarse = []
    with torch.no_grad():
        for _ in range(2):
            guide = poutine.trace(net.guide).get_trace(x)
            upper = {f"z{n}": guide.nodes[f"z{n}"]["value"] for n in range(2, 6)}
            with pyro.plate("slices", len(x), dim=-3):
                program = poutine.trace(poutine.condition(net.svae.model, data=upper))
                model = program.get_trace(tuple(x.shape), MARGINAL)
            guide.compute_log_prob()
            model.compute_log_prob()
            log_p = net.picture(model.nodes["z1"]["value"]).log_prob(x).flatten(1).sum(1)
            for name in upper:
                difference = model.nodes[name]["log_prob"] - guide.nodes[name]["log_prob"]
                log_p = log_p + difference.flatten(1).sum(1)
            coarse.append(log_p)
    torch.manual_seed(2)
    ratio = likelihood_ratio(net, x, 1, 2)
    expected = (whole - torch.stack(coarse).mean(0)) / x[0].numel()
    torch.testing.assert_close(ratio, expected, rtol=1e-3, atol=1e-4)


def test_unusual_is_a_distance_either_way(net: StitchNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence and entropy replaced by the slices' grey values: standard scores of 2 and 0."""
    usual = torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 64, 64).clone()
    x = torch.tensor([0.0, 0.4, 0.8])[:, None, None].expand(3, 64, 64).clone()

    where = "pyro_stitchnet.posterior.evidence"
    monkeypatch.setattr(f"{where}.log_evidence", lambda net, x, s, batch_size: -x.sum((1, 2)))
    monkeypatch.setattr(f"{where}.probabilities", lambda net, x, options: x)
    monkeypatch.setattr(f"{where}.entropy", lambda p: p)
    distances = unusual(net, x, usual)
    assert torch.allclose(distances, torch.tensor([2.0, 0.0, 2.0]), atol=1e-4)
    with pytest.raises(ValueError, match="at least 3"):
        unusual(net, x, usual[:2])


def test_black_is_unusual_to_a_model_of_noise(net: StitchNet, x: Tensor) -> None:
    usual = torch.rand(4, 64, 64)
    far, near = unusual(net, torch.cat([torch.zeros(1, 64, 64), x[:1]]), usual, 2)
    assert far > 5 * near


@pytest.mark.parametrize("name", ["tiny", "guided"])
def test_units_that_ignore_the_slice_are_not_active(name: str, x: Tensor) -> None:
    torch.manual_seed(0)
    net = StitchNet(preset(name).model).eval()
    equal = active_units(net, x[:1].repeat(4, 1, 1), batch_size=2)
    assert equal == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0}
    for crush in net.svae.crush:
        for parameter in crush.parameters():
            parameter.data.mul_(3)
    different = active_units(net, torch.linspace(0, 1, 6)[:, None, None].expand(6, 64, 64).clone())
    assert max(different.values()) > 0.5


def test_slices_drawn_from_the_model_pass_the_check(net: StitchNet) -> None:
    """Their histograms lie within the band of the model; those of other slices do not."""
    base, y = torch.full((2, 64, 64), 0.5), torch.full((2, 64, 64), GGO)
    with torch.no_grad():
        own = net.picture(net.guide(base)).styles.sample()[..., GGO]
    other = torch.full_like(own, 0.999)

    def outside(x: Tensor) -> float:
        table = grey_check(net, x, y, 12, bins=8)
        assert set(table["label"]) == {"ggo"}
        assert table["observed"].sum() == pytest.approx(1, abs=1e-5)
        assert table["drawn"].sum() == pytest.approx(1, abs=1e-4)
        assert (table["low"] <= table["high"]).all()
        beyond = (table["observed"] - table["high"]).clip(lower=0)
        return float(beyond.sum())

    assert outside(own) < 0.1
    assert outside(other) > 0.5


def test_errors(tiny: StitchNet, svae: SliceVAE, x: Tensor) -> None:
    net = tiny
    with pytest.raises(ValueError, match="1 to 4"):
        likelihood_ratio(net, x, 5)
    with pytest.raises(ValueError, match="at least 1"):
        log_evidence(net, x, 0)
    with pytest.raises(ValueError, match="at least 2"):
        active_units(net, x[:1])
    with pytest.raises(ValueError, match="at least 2"):
        grey_check(net, x, x.long(), 1)
    with pytest.raises(ValueError, match="no labels"):
        grey_check(svae, x, x.long())  # type: ignore[arg-type]
