"""Pyro traps that this project steers around, each shown on a program of its own.

A failure here means that a release of Pyro or torch changed a behaviour that the design relies on.
Nothing of `pyro_stitchnet` is imported: where a trap has a safe way, the test shows that too.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import cast

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, JitTraceEnum_ELBO, Trace_ELBO, TraceEnum_ELBO
from pyro.nn import PyroModule
from pyro.optim import PyroOptim
from pyro.poutine.runtime import InferDict
from torch import BoolTensor, Tensor, nn
from torch.nn import functional as F


@pytest.fixture(autouse=True)
def validated() -> Iterator[None]:
    with pyro.validation_enabled(True):
        yield


def empty_guide(*args: object, **kwargs: object) -> None:
    """Everything latent is enumerated."""


# --- 1. Convolving an enumerated y ----------------------------------------------------------------


PRIOR = torch.tensor([0.3, 0.7])
KERNEL = torch.tensor([[[[0.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 0.0]]]])


def pixelwise(y: Tensor) -> Tensor:
    return 2.0 * y.float()


def convolved(y: Tensor) -> Tensor:
    flat = y.float().expand(*y.shape[:-2], 2, 2).reshape(-1, 1, 2, 2)
    out = F.conv2d(flat, KERNEL, padding=1)
    return out.reshape(*y.shape[:-2], 2, 2)


def two_by_two(x: Tensor, mean_of: Callable[[Tensor], Tensor]) -> None:
    with pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 2, dim=-1):
        y = pyro.sample("y", dist.Categorical(PRIOR), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(mean_of(y), 1.0), obs=x)


class TwoByTwo(PyroModule):
    def forward(self, x: Tensor) -> None:
        two_by_two(x, pixelwise)


class EmptyGuide(PyroModule):
    def forward(self, x: Tensor) -> None:
        """Everything latent is enumerated."""


def brute_force(x: Tensor, mean_of: Callable[[Tensor], Tensor]) -> float:
    maps = torch.tensor(list(itertools.product([0, 1], repeat=4))).reshape(16, 2, 2)
    log_joint = PRIOR.log()[maps] + dist.Normal(mean_of(maps), 1.0).log_prob(x)
    return -log_joint.sum((-2, -1)).logsumexp(0).item()


@pytest.mark.parametrize(("mean_of", "exact"), [(pixelwise, True), (convolved, False)])
def test_1_enumerated_y_may_be_used_pixelwise_only(
    mean_of: Callable[[Tensor], Tensor], exact: bool
) -> None:
    x = torch.tensor([[0.3, 1.8], [-0.5, 2.2]])
    enumerated = TraceEnum_ELBO(max_plate_nesting=2).loss(two_by_two, empty_guide, x, mean_of)
    expected = brute_force(x, mean_of)
    if exact:
        assert enumerated == pytest.approx(expected, abs=1e-5)
    else:  # a wrong number, and no error
        assert math.isfinite(enumerated)
        assert abs(enumerated - expected) > 1e-2


# --- 2. obs_mask drops enumeration ----------------------------------------------------------------


def test_2_obs_mask_samples_y_where_it_should_enumerate() -> None:
    x, labels = torch.tensor([0.0, 3.0, 1.0]), torch.tensor([0, 1, 0])
    seen = torch.tensor([True, True, False])
    styles = dist.Normal(torch.tensor([0.0, 3.0]), 1.0)
    enumerate_y: InferDict = {"enumerate": "parallel"}

    def masked() -> None:
        with pyro.plate("pixels", 3):
            prior = dist.Categorical(PRIOR)
            mask = cast(BoolTensor, seen)
            y = pyro.sample("y", prior, obs=labels, obs_mask=mask, infer=enumerate_y)
            pyro.sample("x", dist.Normal(3.0 * y.float(), 1.0), obs=x)

    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    with (
        pytest.warns(UserWarning, match="in model but not guide: {'y_unobserved'}"),
        pytest.warns(UserWarning, match="no sample sites configured for enumeration"),
    ):
        losses = [elbo.loss(masked, empty_guide) for _ in range(20)]
    assert len(set(losses)) == 2  # one for each y that is sampled at the unseen pixel

    # Safe in Pyro: seen and unseen pixels in plates of their own.
    def split() -> None:
        for name, mask, y_obs in [("seen", seen, labels[seen]), ("unseen", ~seen, None)]:
            infer = enumerate_y if y_obs is None else None
            with pyro.plate(name, int(mask.sum())):
                y = pyro.sample(f"y_{name}", dist.Categorical(PRIOR), obs=y_obs, infer=infer)
                pyro.sample(f"x_{name}", dist.Normal(3.0 * y.float(), 1.0), obs=x[mask])

    # What this project does: one closed-form sum over the labels that each pixel allows.
    def closed_form() -> None:
        allowed = F.one_hot(labels, 2).bool() | ~seen[:, None]
        log_joint = PRIOR.log() + styles.log_prob(x[:, None])
        with pyro.plate("pixels", 3):
            pyro.factor("x", log_joint.masked_fill(~allowed, -math.inf).logsumexp(-1))

    exact = elbo.loss(split, empty_guide)
    assert min(abs(loss - exact) for loss in losses) > 0.1
    assert Trace_ELBO().loss(closed_form, empty_guide) == pytest.approx(exact, abs=1e-5)


# --- 3. SVI against ELBOModule --------------------------------------------------------------------


class Decoder(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("slices", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(self.net(z[:, None])[:, 0], 1.0), obs=x)


class Encoder(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(1, 1)  # another net, the same attribute name

    def forward(self, x: Tensor) -> None:
        with pyro.plate("slices", len(x)):
            pyro.sample("z", dist.Normal(self.net(x[:, None])[:, 0], 1.0))


def trained(module: nn.Module, before: list[Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def test_3_svi_never_trains_the_models_net_under_a_shared_name() -> None:
    x, model, guide = torch.randn(8), Decoder(), Encoder()
    initial = weights(model), weights(guide)
    svi = SVI(model, guide, PyroOptim(torch.optim.Adam, {"lr": 0.1}), Trace_ELBO())
    for _ in range(3):
        svi.step(x)
    assert len(pyro.get_param_store()) == 2  # one weight and one bias for two nets
    assert not trained(model, initial[0])
    assert trained(guide, initial[1])


def test_3_elbo_module_and_a_torch_optimizer_train_both() -> None:
    x, model, guide = torch.randn(8), Decoder(), Encoder()
    initial = weights(model), weights(guide)
    elbo = Trace_ELBO()(model, guide)
    optimizer = torch.optim.Adam(elbo.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        elbo(x).backward()
        optimizer.step()
    assert trained(model, initial[0])
    assert trained(guide, initial[1])


def test_3_module_local_params_with_plain_children_raises_in_svi_only() -> None:
    x = torch.randn(8)
    with pyro.settings.context(module_local_params=True):
        model, guide = Decoder(), Encoder()
        svi = SVI(model, guide, PyroOptim(torch.optim.Adam, {"lr": 0.1}), Trace_ELBO())
        with pytest.raises(AttributeError, match="unconstrained"):
            svi.step(x)
        assert Trace_ELBO()(model, guide)(x).isfinite()


# --- 4. Scale of zero -----------------------------------------------------------------------------


def loss_of_latent(scale: float) -> float:
    def model() -> None:
        with poutine.scale(scale=scale):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide() -> None:
        with poutine.scale(scale=scale):
            pyro.sample("z", dist.Normal(3.0, 1.0))

    pyro.set_rng_seed(0)
    return Trace_ELBO().loss(model, guide)


def test_4_scale_of_zero_raises_and_a_small_scale_does_not() -> None:
    with pytest.raises(ValueError, match="scale"):
        loss_of_latent(0.0)
    assert loss_of_latent(1e-6) == pytest.approx(1e-6 * loss_of_latent(1.0), rel=1e-4)


# --- 5. Beta in low precision and at its ends -----------------------------------------------------


def test_5_beta_in_bfloat16_is_wrong_and_infinite_at_its_ends() -> None:
    def log_prob(dtype: torch.dtype) -> float:
        a, b, x = (torch.tensor(v, dtype=dtype) for v in (200.0, 100.0, 0.66))
        return dist.Beta(a, b).log_prob(x).item()

    exact = log_prob(torch.float64)
    assert log_prob(torch.float32) == pytest.approx(exact, abs=1e-3)
    assert abs(log_prob(torch.bfloat16) - exact) > 0.5

    sparse = dist.Beta(torch.tensor(0.5), torch.tensor(2.0))
    ends = torch.tensor([0.0, 1.0])
    assert sparse.log_prob(ends).tolist() == [math.inf, -math.inf]
    assert sparse.log_prob(ends.clamp(1 / 512, 1 - 1 / 512)).isfinite().all()


# --- 6. State that outlives a model ---------------------------------------------------------------


def test_6_an_elbo_instance_keeps_the_plate_nesting_of_its_first_model() -> None:
    def plateless() -> None:
        pyro.sample("y", dist.Categorical(PRIOR), infer={"enumerate": "parallel"})

    x, elbo = torch.zeros(2, 2), TraceEnum_ELBO()
    elbo.loss(plateless, empty_guide)
    assert elbo.max_plate_nesting == 0
    with pytest.raises((AssertionError, RuntimeError, ValueError)):  # no message to match
        elbo.loss(two_by_two, empty_guide, x, pixelwise)
    fresh = TraceEnum_ELBO().loss(two_by_two, empty_guide, x, pixelwise)
    assert fresh == pytest.approx(brute_force(x, pixelwise), abs=1e-5)


def test_6_the_param_store_outlives_a_model() -> None:
    def new_linear() -> tuple[nn.Linear, Tensor]:
        net = nn.Linear(2, 2)
        return net, net.weight.detach().clone()

    old, old_weight = new_linear()
    pyro.module("net", old)

    new, new_weight = new_linear()
    pyro.module("net", new)  # keeps its weights, but SVI would train the old net's
    assert torch.equal(new.weight, new_weight)
    assert new.weight not in set(pyro.get_param_store().values())
    pyro.module("net", new, update_module_params=True)  # overwrites them
    assert torch.equal(new.weight, old_weight)

    pyro.clear_param_store()
    new, new_weight = new_linear()
    pyro.module("net", new, update_module_params=True)
    assert torch.equal(new.weight, new_weight)
    assert new.weight in set(pyro.get_param_store().values())


# --- 7. Shared weights in a state_dict ------------------------------------------------------------


class Program(PyroModule):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body


def test_7_elbo_module_saves_shared_weights_twice() -> None:
    body = nn.Linear(2, 2)
    elbo = Trace_ELBO()(Program(body), Program(body))
    assert len(list(elbo.parameters())) == 2
    assert len(elbo.state_dict()) == 4
    assert set(body.state_dict()) == {"weight", "bias"}  # what to save


# --- 8. Compiling and tracing ---------------------------------------------------------------------


def test_8_wrapping_by_torch_compile_renames_the_keys() -> None:
    net = nn.Linear(2, 2)
    wrapped = torch.compile(net, backend="eager")
    assert isinstance(wrapped, nn.Module)
    assert all(key.startswith("_orig_mod.") for key in wrapped.state_dict())
    net.compile(backend="eager")  # in place
    assert set(net.state_dict()) == {"weight", "bias"}


# torch.jit.trace warns of its deprecation, in some torch releases; its result is still right.
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_8_jit_elbo_agrees_with_brute_force() -> None:
    x = torch.tensor([[0.3, 1.8], [-0.5, 2.2]])
    jit = JitTraceEnum_ELBO(max_plate_nesting=2)
    # `loss` is inherited and never traced; `differentiable_loss` is what the trace serves.
    loss = jit.differentiable_loss(TwoByTwo(), EmptyGuide(), x)
    assert loss.item() == pytest.approx(brute_force(x, pixelwise), abs=1e-5)


# --- 9. Validation, and autocast ------------------------------------------------------------------


@pytest.mark.parametrize("gradient_free", [torch.no_grad, torch.inference_mode])
def test_9_elbo_module_raises_without_gradients_and_loss_does_not(
    gradient_free: Callable[[], AbstractContextManager[None]],
) -> None:
    x, model, guide = torch.zeros(2, 2), TwoByTwo(), EmptyGuide()
    elbo = TraceEnum_ELBO(max_plate_nesting=2)
    with gradient_free():
        with pytest.raises(ValueError, match="cannot be differentiated"):
            elbo(model, guide)(x)
        assert elbo.loss(model, guide, x) == pytest.approx(brute_force(x, pixelwise), abs=1e-5)


def test_9_autocast_hands_bfloat16_to_the_distribution() -> None:
    image = torch.rand(1, 1, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.Conv2d(1, 1, 3)(image).dtype is torch.bfloat16
        logits = nn.Linear(4, 4)(image)
        assert dist.Categorical(logits=logits).logits.dtype is torch.bfloat16
        assert dist.Categorical(logits=logits.float()).logits.dtype is torch.float32


# --- 10. One batch norm, two distributions --------------------------------------------------------


def eval_error(norms: tuple[nn.BatchNorm1d, nn.BatchNorm1d]) -> list[float]:
    """How far each stream's output in evaluation is from its output in training."""
    streams = torch.randn(256, 1), 5.0 + 3.0 * torch.randn(256, 1)
    for norm in norms:
        norm.train()
    for _ in range(100):
        outputs = [norm(x) for norm, x in zip(norms, streams, strict=True)]
    return [
        (norm.eval()(x) - y).abs().mean().item()
        for norm, x, y in zip(norms, streams, outputs, strict=True)
    ]


def test_10_a_shared_batch_norm_matches_neither_distribution() -> None:
    shared = nn.BatchNorm1d(1)
    assert min(eval_error((shared, shared))) > 0.3
    assert max(eval_error((nn.BatchNorm1d(1), nn.BatchNorm1d(1)))) < 0.01


def test_the_parameter_store_copies_channels_last_weights() -> None:
    """A guide that runs before `pyro.module` in the first step trains weights that are not kept."""
    for layout, shared in ((torch.contiguous_format, True), (torch.channels_last, False)):
        pyro.clear_param_store()
        network = nn.Conv2d(2, 4, 3).to(memory_format=layout)
        before = network.weight.data_ptr()
        pyro.module("network", network)
        assert (pyro.get_param_store()["network$$$weight"].data_ptr() == before) == shared
