"""Under autocast Pyro sums enumerated sites in half precision; the package does so in float32."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO

from pyro_stitchnet.model.estimators import Float32TraceEnum_ELBO

LOGITS = torch.randn(64, 64, 4, generator=torch.Generator().manual_seed(0))
LOCS = torch.tensor([0.0, 1.0, 2.0, 3.0], requires_grad=True)
X = torch.full((64, 64), 0.7)


def model() -> None:
    with pyro.plate("rows", 64, dim=-2), pyro.plate("columns", 64, dim=-1):
        y = pyro.sample("y", dist.Categorical(logits=LOGITS), infer={"enumerate": "parallel"})
        assert torch.is_autocast_enabled("cpu") == AUTOCAST[-1]
        pyro.sample("x", dist.Normal(LOCS[y], 0.1), obs=X)


def guide() -> None:
    pass


AUTOCAST = [False]


def loss(estimator: type[TraceEnum_ELBO], autocast: bool) -> float:
    AUTOCAST.append(autocast)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return estimator(max_plate_nesting=2).differentiable_loss(model, guide).item()


def exact() -> float:
    scores = LOGITS.log_softmax(-1) + dist.Normal(LOCS, 0.1).log_prob(X[..., None])
    return -scores.logsumexp(-1).sum().item()


def test_pyros_own_estimator_rounds_under_autocast() -> None:
    assert loss(TraceEnum_ELBO, False) == pytest.approx(exact(), rel=1e-5)
    assert loss(TraceEnum_ELBO, True) != pytest.approx(exact(), rel=1e-5)


@pytest.mark.parametrize("autocast", [True, False])
def test_the_float32_estimator_does_not_and_leaves_autocast_to_the_programs(autocast: bool) -> None:
    assert loss(Float32TraceEnum_ELBO, autocast) == pytest.approx(exact(), rel=1e-5)
