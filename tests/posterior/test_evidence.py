"""Bounds on log p(x) against Pyro's, active units and the predictive check against known cases."""

import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import Tensor

from pyro_stitchnet.labels import GGO
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import (
    active_units,
    grey_check,
    likelihood_ratio,
    log_evidence,
    log_weights,
    unusual,
)
from pyro_stitchnet.presets import Objective, preset

MARGINAL = Objective(labels="marginal")


@pytest.fixture(params=["tiny", "guided"])
def net(request: pytest.FixtureRequest) -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset(request.param).model).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 64, 64)


def test_the_mean_weight_is_pyros_elbo(net: StitchNet, x: Tensor) -> None:
    elbo = Trace_ELBO(max_plate_nesting=3)
    torch.manual_seed(1)
    expected = [-elbo.loss(net.model, net.guide, x, None, MARGINAL) for _ in range(4)]
    torch.manual_seed(1)
    found = log_weights(net, x, 4, batch_size=3)
    assert found.shape == (4, 3)
    torch.testing.assert_close(found.sum(1), torch.tensor(expected), rtol=1e-4, atol=0.5)


def test_the_bound_is_pyros_renyi_bound_of_order_0(net: StitchNet, x: Tensor) -> None:
    elbo = RenyiELBO(alpha=0, num_particles=5, max_plate_nesting=3, vectorize_particles=False)
    torch.manual_seed(1)
    expected = -elbo.loss(net.model, net.guide, x[:1], None, MARGINAL)
    torch.manual_seed(1)
    assert log_evidence(net, x[:1], 5).item() == pytest.approx(expected, rel=1e-4, abs=0.5)


def test_more_draws_bound_more_tightly(net: StitchNet, x: Tensor) -> None:
    weights = log_weights(net, x, 32)
    bounds = [float(weights[:k].logsumexp(0).mean() - torch.tensor(k).log()) for k in (1, 32)]
    assert float(weights.mean()) < bounds[1]


def test_batches_do_not_mix_slices(net: StitchNet, x: Tensor) -> None:
    """A slice's weight does not depend on the others, but for what rounding does."""
    twice = x[:1].repeat(2, 1, 1)
    weights = log_weights(net, torch.cat([twice, x[1:2]]), 24, batch_size=3).mean(0)
    spread = weights[0] - weights[1]
    assert spread.abs() < 0.1 * weights.abs().max()
    assert torch.allclose(weights[2], log_weights(net, x[1:2], 24).mean(), rtol=0.05)


def test_a_level_from_the_prior_is_less_likely_once_it_matters(x: Tensor) -> None:
    """A decoder whose brightness is z1: where z1 is lost, so is the slice."""
    torch.manual_seed(0)
    net = StitchNet(preset("tiny").model).eval()
    ratio = likelihood_ratio(net, x, 1, 4)
    assert ratio.shape == (3,)
    assert ratio.isfinite().all()
    torch.manual_seed(2)
    whole = log_weights(net, x, 4).mean(0)
    torch.manual_seed(2)
    same = likelihood_ratio(net, x, 1, 4)
    assert torch.allclose(same, likelihood_ratio_by_hand(net, x, whole), atol=0.05)


def likelihood_ratio_by_hand(net: StitchNet, x: Tensor, whole: Tensor) -> Tensor:
    """With z1 from the prior its two log-probabilities cancel: those of z2 ... z5 and x remain."""
    import pyro
    from pyro import poutine

    coarse = []
    with torch.no_grad():
        for _ in range(4):
            guide = poutine.trace(net.guide).get_trace(x)
            upper = {f"z{n}": guide.nodes[f"z{n}"]["value"] for n in range(2, 6)}
            with pyro.plate("slices", len(x), dim=-3):
                z1 = poutine.condition(net.svae.model, data=upper)(tuple(x.shape), MARGINAL)
            guide.compute_log_prob()
            log_p = net.picture(z1).log_prob(x).flatten(1).sum(1)
            with pyro.plate("slices", len(x), dim=-3):
                model = poutine.trace(poutine.condition(net.svae.model, data=upper)).get_trace(
                    tuple(x.shape), MARGINAL
                )
            model.compute_log_prob()
            for name in upper:
                log_p = log_p + (
                    model.nodes[name]["log_prob"] - guide.nodes[name]["log_prob"]
                ).flatten(1).sum(1)
            coarse.append(log_p)
    return (whole - torch.stack(coarse).mean(0)) / x[0].numel()


def test_unusual_is_a_distance_either_way(net: StitchNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence and entropy as the slices' mean grey and its square: known standard scores."""
    usual = torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 64, 64).clone()
    odd = torch.tensor([0.0, 0.4, 0.8])[:, None, None].expand(3, 64, 64).clone()

    class Doubt:
        def __init__(self, x: Tensor) -> None:
            self.entropy = x

    where = "pyro_stitchnet.posterior.evidence"
    monkeypatch.setattr(f"{where}.log_evidence", lambda net, x, s, batch_size: -x.sum((1, 2)))
    monkeypatch.setattr(f"{where}.uncertainty", lambda net, x, **how: Doubt(x))
    found = unusual(net, odd, usual)
    assert torch.allclose(found, torch.tensor([2.0, 0.0, 2.0]), atol=1e-4)
    with pytest.raises(ValueError, match="at least 3"):
        unusual(net, odd, usual[:2])


def test_black_is_unusual_to_a_model_of_noise(net: StitchNet, x: Tensor) -> None:
    usual = torch.rand(4, 64, 64)
    far, near = unusual(net, torch.cat([torch.zeros(1, 64, 64), x[:1]]), usual, 2)
    assert far > 5 * near


def test_units_that_ignore_the_slice_are_not_active(net: StitchNet, x: Tensor) -> None:
    alike = active_units(net, x[:1].repeat(4, 1, 1), batch_size=2)
    assert alike == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0}
    for crush in net.svae.crush:
        for parameter in crush.parameters():
            parameter.data.mul_(3)
    apart = active_units(net, torch.linspace(0, 1, 6)[:, None, None].expand(6, 64, 64).clone())
    assert max(apart.values()) > 0.5


def test_a_model_that_draws_what_was_seen_passes_the_check(net: StitchNet) -> None:
    """Slices drawn from the model's own styles lie within its band; others do not."""
    base, y = torch.full((2, 64, 64), 0.5), torch.full((2, 64, 64), GGO)
    with torch.no_grad():
        own = net.picture(net.guide(base)).styles.sample()[..., GGO]
    strange = torch.full_like(own, 0.999)

    def outside(x: Tensor) -> float:
        table = grey_check(net, x, y, 12, bins=8)
        assert set(table["label"]) == {"ggo"}
        assert table["observed"].sum() == pytest.approx(1, abs=1e-5)
        assert table["drawn"].sum() == pytest.approx(1, abs=1e-4)
        assert (table["low"] <= table["high"]).all()
        beyond = (table["observed"] - table["high"]).clip(lower=0)
        return float(beyond.sum())

    assert outside(own) < 0.1
    assert outside(strange) > 0.5


def test_errors(net: StitchNet, x: Tensor) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        likelihood_ratio(net, x, 5)
    with pytest.raises(ValueError, match="at least 1"):
        log_evidence(net, x, 0)
    with pytest.raises(ValueError, match="at least 2"):
        active_units(net, x[:1])
    with pytest.raises(ValueError, match="at least 2"):
        grey_check(net, x, x.long(), 1)
