"""The model as a probabilistic program: every way that y enters agrees with counting it out."""

import itertools
import math
import warnings
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.likelihoods import InteriorBeta
from pyro_stitchnet.model.objective import estimator, negative_elbo
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import PRESETS, ModelConfig, Objective, preset

K = len(LABELS)
TINY = preset("tiny").model


@pytest.fixture(scope="module")
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(TINY)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 32, 64)


def one_hot(y: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(y, K).bool()


class OnTwoByTwo:
    """StitchNet's own programs with the networks' answer replaced: 2 x 2 pixels, no z."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, net: StitchNet) -> None:
        logits = torch.randn(1, 2, 2, K)
        a, b = 0.5 + 4 * torch.rand(2, 1, 2, 2, K)
        self.picture = Stitched(logits, InteriorBeta(a, b))
        self.x = torch.rand(1, 2, 2)
        self.net = net
        monkeypatch.setattr("pyro_stitchnet.model.stitchnet.check_size", lambda shape, shrink: None)
        monkeypatch.setattr(net.svae, "model", lambda shape, objective: None)
        monkeypatch.setattr(net, "picture", lambda z1: self.picture)

    def guide(self, *args: object) -> None:
        pass

    def brute_force(self, allowed: Tensor | None = None) -> float:
        """log of the sum over all 4^4 label maps of p(x, y) 1[y in A]."""
        log_pi = self.picture.log_pi.reshape(4, K)
        scores = self.picture.styles.log_prob(self.x[..., None]).reshape(4, K)
        sets = torch.ones(4, K).bool() if allowed is None else allowed.reshape(4, K)
        maps = [
            sum(log_pi[i, k] + scores[i, k] for i, k in enumerate(labels))
            for labels in itertools.product(range(K), repeat=4)
            if all(sets[i, k] for i, k in enumerate(labels))
        ]
        return float(torch.stack(maps).logsumexp(0))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> OnTwoByTwo:
    return OnTwoByTwo(monkeypatch, StitchNet(TINY))


@pytest.mark.parametrize(
    "allowed",
    [
        None,
        torch.ones(1, 2, 2, K).bool(),
        one_hot(torch.tensor([[[0, 1], [2, 3]]])),
        torch.tensor([[[[1, 1, 0, 0], [0, 0, 1, 1]], [[0, 1, 1, 1], [1, 1, 1, 1]]]]).bool(),
    ],
    ids=["none", "all", "labelled", "sets"],
)
def test_enumeration_is_closed_form_is_brute_force(
    small: OnTwoByTwo, allowed: Tensor | None
) -> None:
    enumerated = -TraceEnum_ELBO(max_plate_nesting=3).loss(
        small.net.model, small.guide, small.x, allowed, Objective()
    )
    closed = -Trace_ELBO(max_plate_nesting=3).loss(
        small.net.model, small.guide, small.x, allowed, Objective(labels="marginal")
    )
    truth = small.brute_force(allowed)
    assert enumerated == pytest.approx(truth, abs=1e-4)
    assert closed == pytest.approx(truth, abs=1e-4)


def test_labelled_elbo_is_conditioned_elbo_is_hand_computation(small: OnTwoByTwo) -> None:
    y = torch.tensor([[[0, 1], [2, 3]]])
    conditioned = -Trace_ELBO(max_plate_nesting=3).loss(
        poutine.condition(small.net.model, {"y": y}), small.guide, small.x
    )
    log_pi = small.picture.log_pi.gather(-1, y[..., None])
    scores = small.picture.styles.log_prob(small.x[..., None]).gather(-1, y[..., None])
    assert conditioned == pytest.approx(float((log_pi + scores).sum()), abs=1e-4)
    assert conditioned == pytest.approx(small.brute_force(one_hot(y)), abs=1e-4)


def relaxed_bounds(small: OnTwoByTwo, monkeypatch: pytest.MonkeyPatch, draws: int) -> list[float]:
    monkeypatch.setattr(small.net.svae, "guide", lambda x, objective: None)
    objective = Objective(labels="relaxed", temperature=0.2)
    elbo = estimator(objective)
    return [
        -elbo.loss(small.net.model, small.net.guide, small.x, None, objective) for _ in range(draws)
    ]


def test_relaxed_y_is_exact_where_x_does_not_tell_labels_apart(
    small: OnTwoByTwo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With equal styles the guide's y is the prior's, and every draw gives log p(x)."""
    one = InteriorBeta(torch.tensor(2.0), torch.tensor(3.0)).expand(torch.Size((1, 2, 2, K)))
    small.picture = Stitched(small.picture.log_pi, one)
    for bound in relaxed_bounds(small, monkeypatch, 5):
        assert bound == pytest.approx(small.brute_force(), abs=1e-3)


def test_relaxed_y_bounds_the_evidence_from_below(
    small: OnTwoByTwo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its KL is that of the relaxed labels, which is larger than that of the labels."""
    bounds = relaxed_bounds(small, monkeypatch, 300)
    assert all(map(math.isfinite, bounds))
    assert sum(bounds) / len(bounds) < small.brute_force()


def test_relaxed_y_of_one_label_is_the_conditioned_elbo(net: StitchNet, x: Tensor) -> None:
    """Value and gradient, so that a relaxed model learns from labels as any other does."""
    net.eval()
    y = one_hot(torch.randint(0, K, x.shape))
    results = []
    for labels in ("relaxed", "marginal"):
        net.zero_grad()
        torch.manual_seed(5)
        loss = negative_elbo(net, x, y, Objective(labels=labels))
        loss.backward()
        gradient = [p.grad.clone() for p in net.parameters() if p.grad is not None]
        results.append((loss.item(), torch.cat([g.flatten() for g in gradient])))
    (relaxed, a), (exact, b) = results
    assert relaxed == pytest.approx(exact, abs=1e-3)
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.999


def test_whole_model_agrees_with_itself(net: StitchNet, x: Tensor) -> None:
    """The full ELBO, z included: enumerated = closed form; one label = conditioned."""
    net.eval()
    y = torch.randint(0, K, x.shape)

    def loss(labels: str, allowed: Tensor | None) -> float:
        torch.manual_seed(1)
        return negative_elbo(net, x, allowed, Objective(labels=labels)).item()  # type: ignore[arg-type]

    torch.manual_seed(1)
    conditioned = Trace_ELBO(max_plate_nesting=3).loss(
        poutine.condition(net.model, {"y": y}), net.guide, x
    )
    assert loss("enumerated", None) == pytest.approx(loss("marginal", None), abs=1e-5)
    assert loss("enumerated", one_hot(y)) == pytest.approx(conditioned / x.numel(), abs=1e-5)
    all_allowed = torch.ones(*x.shape, K).bool()
    assert loss("marginal", all_allowed) == pytest.approx(loss("marginal", None), abs=1e-5)


def test_elbo_by_hand(net: StitchNet, x: Tensor) -> None:
    """The loss is what its terms say: -log p(x | z) - log p(z) + log q(z | x), per pixel."""
    net.eval()
    torch.manual_seed(2)
    loss = negative_elbo(net, x, None, Objective()).item()
    torch.manual_seed(2)
    guide = poutine.trace(net.guide).get_trace(x)
    picture = net.picture(guide.nodes["z1"]["value"])
    total = picture.log_prob(x).sum()
    zero, one = torch.zeros(()), torch.ones(())
    for level in range(5, 0, -1):
        site = guide.nodes[f"z{level}"]
        above = guide.nodes[f"z{level + 1}"]["value"] if level < 5 else None
        prior = dist.Normal(zero, one) if above is None else net.svae.prior(level, above)
        total = total + prior.log_prob(site["value"][:, 0, 0]).sum()
        total = total - site["fn"].log_prob(site["value"]).sum()
    assert loss == pytest.approx((-total / x.numel()).item(), abs=1e-5)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("labels", ["own", "enumerated", "marginal", "relaxed"])
def test_every_parameter_gets_a_finite_gradient(name: str, labels: str) -> None:
    """In every preset, on a batch with a labelled, a partly labelled and an unlabelled slice."""
    chosen = preset(name)
    if labels != "own" and name in ("reference", "guided"):
        pytest.skip(f"the preset {name} has one objective, its own")
    net = StitchNet(chosen.model)
    objective = (
        chosen.objective if labels == "own" else replace(chosen.objective, labels=labels)  # type: ignore[arg-type]
    )
    x = torch.rand(3, 64, 64)
    x[:, :8] = 0
    allowed = one_hot(torch.randint(0, K, x.shape))
    allowed[1] |= torch.tensor([False, False, True, True])
    allowed[2] = True
    negative_elbo(net, x, allowed, objective).backward()
    bad = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not bad
    still = [n for n, p in net.named_parameters() if p.grad is not None and not p.grad.any()]
    # A bias right before a batch norm cancels; float noise usually hides it, but may not.
    assert not [n for n in still if not n.endswith("bias")]


@pytest.mark.parametrize("allowed", [True, False], ids=["labelled", "unlabelled"])
def test_either_stream_alone_trains(net: StitchNet, x: Tensor, allowed: bool) -> None:
    sets = one_hot(torch.randint(0, K, x.shape)) if allowed else None
    for labels in ("enumerated", "marginal", "relaxed", "expected"):
        net.zero_grad()
        negative_elbo(net, x, sets, Objective(labels=labels)).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_reference_label_loss_by_hand(net: StitchNet, x: Tensor) -> None:
    """100 x the focal loss, a mean over the labelled slices' pixels; none where none is."""
    net.eval()
    y = torch.randint(0, K, x.shape)
    allowed = one_hot(y)
    allowed[1] = True  # the second slice is unlabelled

    def loss(sets: Tensor | None) -> float:
        torch.manual_seed(3)
        return negative_elbo(net, x, sets, Objective(labels="expected")).item()

    torch.manual_seed(3)
    with torch.no_grad():
        log_pi = net.picture(net.guide(x)).log_pi[0].gather(-1, y[0, ..., None])
    focal = ((1 - log_pi.exp()) ** 2 * -log_pi).mean()
    assert loss(allowed) - loss(None) == pytest.approx(100 * float(focal), rel=1e-4)
    assert loss(torch.ones(*x.shape, K).bool()) == pytest.approx(loss(None), abs=1e-6)


@pytest.mark.parametrize("labels", ["enumerated", "marginal"])
def test_label_weight_counts_the_label_term_again(net: StitchNet, x: Tensor, labels: str) -> None:
    net.eval()
    allowed = one_hot(torch.randint(0, K, x.shape))
    allowed[..., 2] |= allowed[..., 3]

    def loss(weight: float) -> float:
        torch.manual_seed(4)
        objective = Objective(labels=labels, label_weight=weight)  # type: ignore[arg-type]
        return negative_elbo(net, x, allowed, objective).item()

    torch.manual_seed(4)
    with torch.no_grad():
        pi = net.picture(net.guide(x)).log_pi.exp()
    log_set = (pi * allowed).sum(-1).log().mean()
    assert loss(11.0) - loss(1.0) == pytest.approx(-10 * float(log_set), rel=1e-4)


def test_draws_slices_from_the_prior(net: StitchNet) -> None:
    with torch.no_grad():
        trace = poutine.trace(net.model).get_trace(None, shape=(3, 32, 64))
    drawn = trace.nodes["x"]["value"]
    assert drawn.shape == (3, 32, 64)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert set(trace.nodes["y"]["value"].unique().tolist()) <= set(range(K))
    with pytest.raises(ValueError, match="shape="):
        net.model(None)


def test_conditioning_on_a_map_draws_from_its_styles(net: StitchNet) -> None:
    """poutine.condition makes a counterfactual: all consolidation is the consolidation style."""
    y = torch.full((1, 32, 32), 3)
    with torch.no_grad():
        trace = poutine.trace(poutine.condition(net.model, {"y": y})).get_trace(
            None, shape=(1, 32, 32)
        )
    picture = trace.nodes["_RETURN"]["value"]
    assert torch.allclose(trace.nodes["x"]["fn"].mean, picture.styles.mean[..., 3])


def test_programs_leave_the_parameter_store_alone(net: StitchNet, x: Tensor) -> None:
    negative_elbo(net, x)
    assert not list(pyro.get_param_store())


def test_no_warning_without_enumeration(net: StitchNet, x: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        negative_elbo(net, x, None, Objective(labels="marginal"))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("labels", ["marginal", "enumerated", "relaxed", "expected", "guided"])
def test_networks_in_half_precision_likelihood_and_kl_in_float32(
    name: str, labels: str, x: Tensor
) -> None:
    """Parameters and value of every site, its log-probability, every factor, the whole bound."""
    net = StitchNet(preset(name).model)
    if labels == "guided" and net.segmenter is None:
        pytest.skip(f"the preset {name} has no q(y | x)")
    objective = Objective(labels=labels, free_bits=0.1, label_weight=2)  # type: ignore[arg-type]
    x = x.repeat(1, net.config.shrink, net.config.shrink)
    sets = one_hot(torch.randint(0, K, x.shape))
    seen = []
    net.svae.decoder.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        guide = poutine.trace(net.guide).get_trace(x, sets, objective)
        replayed = poutine.replay(net.model, trace=guide)
        model = poutine.trace(replayed).get_trace(x, sets, objective)
        for trace in (guide, model):
            trace.compute_log_prob()
        loss = negative_elbo(net, x, sets, objective)
        picture = model.nodes["_RETURN"]["value"]
        alone = net.log_pi(guide.nodes["z1"]["value"])
    assert set(seen) == {torch.bfloat16}, "the networks were to be autocast"
    for trace in (guide, model):
        for site in trace.stochastic_nodes + trace.observation_nodes:
            node = trace.nodes[site]
            wrong = torch.float16, torch.bfloat16
            assert node["value"].dtype not in wrong, site
            assert node["log_prob"].dtype == torch.float32, site
    for level in range(1, 6):
        for trace in (guide, model):
            normal = trace.nodes[f"z{level}"]["fn"].base_dist
            assert normal.loc.dtype == normal.scale.dtype == torch.float32
    assert picture.log_pi.dtype == picture.styles.mean.dtype == alone.dtype == torch.float32
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_stays_on_its_device() -> None:
    """On the meta device any tensor made elsewhere would raise."""
    net = StitchNet(TINY).to("meta")
    x = torch.empty(2, 32, 32, device="meta")
    allowed = torch.empty(2, 32, 32, K, dtype=torch.bool, device="meta")
    with pyro.validation_enabled(False):
        for labels in ("marginal", "relaxed", "expected", "enumerated"):
            objective = Objective(labels=labels, free_bits=0.1)
            guide = poutine.trace(net.guide).get_trace(x, allowed, objective)
            model = poutine.trace(poutine.replay(net.model, trace=guide)).get_trace(
                x, allowed, objective
            )
            assert model.nodes["x"]["fn"].log_prob(x).device.type == "meta"


def test_unknown_likelihood() -> None:
    with pytest.raises(ValueError, match="bounded-beta"):
        StitchNet(ModelConfig(likelihood="gaussian"))  # type: ignore[arg-type]
