"""Whole models: label terms agree with each other, the ELBO by hand, q(y | x), precision."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.nn import functional

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.label_terms import (
    AnyLabelTerm,
    Enumerated,
    Expected,
    Guided,
    Marginal,
    Relaxed,
)
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import pixel_plates
from pyro_stitchnet.presets import PRESETS, preset

K = len(LABELS)
STITCHED = [name for name, chosen in PRESETS.items() if chosen.model.stitched]
OWN = [(name, preset(name).objective.labels) for name in STITCHED]
OTHERS = [("guided", term) for term in (Enumerated(), Marginal(), Relaxed(), Expected())]


def cases(pairs: list[tuple[str, AnyLabelTerm]]) -> pytest.MarkDecorator:
    """Presets with a label term each."""
    ids = [f"{name}-{term.kind}" for name, term in pairs]
    return pytest.mark.parametrize(("name", "term"), pairs, ids=ids)


OneHot = Callable[[Tensor], Tensor]


@pytest.fixture
def net(shared_net: Callable[[str], StitchNet]) -> StitchNet:
    return shared_net("tiny")


@pytest.fixture
def guided(shared_net: Callable[[str], StitchNet]) -> StitchNet:
    return shared_net("guided")


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 64, 64)


def loss(net: StitchNet, x: Tensor, allowed: Tensor | None, term: AnyLabelTerm) -> Tensor:
    torch.manual_seed(1)
    return bound(net, x, allowed, Objective(term)).loss


# --- The bound ------------------------------------------------------------------------------------


def test_exact_terms_agree_with_each_other_and_with_conditioning(
    net: StitchNet, x: Tensor, one_hot: OneHot
) -> None:
    y = torch.randint(0, K, x.shape)
    for allowed in (None, one_hot(y)):
        enumerated, marginal = (
            float(loss(net, x, allowed, term).detach()) for term in (Enumerated(), Marginal())
        )
        assert enumerated == pytest.approx(marginal, abs=1e-5)
    torch.manual_seed(1)
    conditioned = Trace_ELBO(max_plate_nesting=3).loss(
        poutine.condition(net.model, {"y": y}), net.guide, x
    )
    assert marginal == pytest.approx(conditioned / x.numel(), abs=1e-5)


def test_elbo_by_hand(net: StitchNet, x: Tensor) -> None:
    """-log p(x | z) - log p(z) + log q(z | x), per pixel."""
    torch.manual_seed(2)
    value = bound(net, x).loss.item()
    torch.manual_seed(2)
    guide = poutine.trace(net.guide).get_trace(x)
    total = net.picture(guide.nodes["z1"]["value"]).log_prob(x).sum()
    zero, one = torch.zeros(()), torch.ones(())
    for level in range(5, 0, -1):
        site = guide.nodes[f"z{level}"]
        above = guide.nodes[f"z{level + 1}"]["value"] if level < 5 else None
        prior = dist.Normal(zero, one) if above is None else net.svae.prior(level, above)
        total = total + prior.log_prob(site["value"][:, 0, 0]).sum()
        total = total - site["fn"].log_prob(site["value"]).sum()
    assert value == pytest.approx((-total / x.numel()).item(), abs=1e-5)


@pytest.mark.parametrize("term", [Relaxed(), Guided()], ids=["relaxed", "guided"])
def test_with_one_label_per_pixel_value_and_gradient_are_the_exact_term(
    term: AnyLabelTerm, x: Tensor, one_hot: OneHot
) -> None:
    torch.manual_seed(0)
    net = StitchNet(preset("guided").model).eval()
    y = one_hot(torch.randint(0, K, x.shape))
    values, gradients = [], []
    for each in (term, Marginal()):
        net.zero_grad()
        value = loss(net, x, y, each)
        value.backward()
        values.append(value.item())
        parameters = [*net.svae.parameters(), *net.heads.parameters()]
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    assert values[0] == pytest.approx(values[1], abs=1e-3)
    one, other = gradients
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.999


@cases([*OWN, ("tiny", Enumerated()), ("tiny", Relaxed())])
def test_every_parameter_gets_a_finite_gradient(
    name: str, term: AnyLabelTerm, one_hot: OneHot
) -> None:
    """On a batch with a labelled, a partially labelled and an unlabelled slice."""
    # Behind a convolution that starts at 0 there is no gradient in the first step.
    net = StitchNet(replace(preset(name).model, identity_start=False))
    x = torch.rand(3, 64, 64)
    x[:, :8] = 0
    allowed = one_hot(torch.randint(0, K, x.shape))
    allowed[1] |= torch.tensor([False, False, True, True])
    allowed[2] = True
    value = bound(net, x, allowed, replace(preset(name).objective, labels=term)).loss
    if net.classifier is not None:  # the learner adds its loss
        value = value + net.log_q(x).square().mean()
    value.backward()
    bad = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not bad
    zero = [n for n, p in net.named_parameters() if p.grad is not None and not p.grad.any()]
    # A bias right before a batch norm cancels; float noise usually hides it, but may not.
    assert not [n for n in zero if not n.endswith("bias")]


def test_a_model_without_a_classifier_refuses_the_guided_term(net: StitchNet, x: Tensor) -> None:
    with pytest.raises(ValueError, match="classifier=True"):
        bound(net, x, None, Objective(Guided()))
    with pytest.raises(ValueError, match="no q"):
        net.log_q(x)


# --- The Pyro programs ----------------------------------------------------------------------------


def test_draws_slices_from_the_prior(net: StitchNet) -> None:
    with torch.no_grad():
        trace = poutine.trace(net.model).get_trace(None, shape=(3, 32, 64))
    drawn = trace.nodes["x"]["value"]
    assert drawn.shape == (3, 32, 64)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert set(trace.nodes["y"]["value"].unique().tolist()) <= set(range(K))
    with pytest.raises(ValueError, match="shape="):
        net.model(None)


def test_conditioning_on_a_label_map_draws_from_its_styles(net: StitchNet) -> None:
    y = torch.full((1, 32, 32), 3)
    with torch.no_grad():
        trace = poutine.trace(poutine.condition(net.model, {"y": y})).get_trace(
            None, shape=(1, 32, 32)
        )
    picture = trace.nodes["_RETURN"]["value"]
    assert torch.allclose(trace.nodes["x"]["fn"].mean, picture.styles.mean[..., 3])


def test_programs_leave_the_parameter_store_empty(net: StitchNet, x: Tensor) -> None:
    bound(net, x)
    assert not list(pyro.get_param_store())


def test_no_warning_without_enumeration(net: StitchNet, x: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bound(net, x, None, Objective(Marginal()))


def test_an_unknown_likelihood_is_refused() -> None:
    with pytest.raises(ValueError, match="bounded-beta"):
        StitchNet(ModelConfig(likelihood="gaussian"))  # type: ignore[arg-type]


# --- Labels and styles ----------------------------------------------------------------------------


def test_the_posterior_separates_lesions_by_bayes_rule_and_keeps_the_infection(
    guided: StitchNet, x: Tensor
) -> None:
    assert guided.levels is not None
    with torch.no_grad():
        z1, log_q = guided.guide(x), guided.log_q(x)
        scores = guided.levels(x, log_q.exp())
        posterior = guided.log_posterior(z1, x)
    assert torch.allclose(posterior[..., :2], log_q[..., :2], atol=1e-5)
    assert torch.allclose(posterior.exp().sum(-1), torch.ones(()), atol=1e-5)
    odds = scores[..., 1] - scores[..., 0]
    torch.testing.assert_close(posterior[..., 3] - posterior[..., 2], odds, rtol=1e-4, atol=1e-4)


def test_the_posterior_takes_another_q(guided: StitchNet, x: Tensor) -> None:
    uniform = torch.full((*x.shape, K), 0.25).log()
    with torch.no_grad():
        posterior = guided.log_posterior(guided.guide(x), x, uniform)
    assert torch.allclose(posterior[..., :2], uniform[..., :2])


@pytest.mark.parametrize("name", STITCHED)
def test_log_pi_alone_is_that_of_the_picture(
    name: str, shared_net: Callable[[str], StitchNet], x: Tensor
) -> None:
    net = shared_net(name)
    with torch.no_grad():
        z1 = net.guide(x)
        torch.testing.assert_close(net.log_pi(z1), net.picture(z1).log_pi, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("downsampling", [1, 2])
def test_pooled_styles_cannot_show_single_pixels(
    downsampling: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features that differ only within the pooled blocks give the same styles."""
    torch.manual_seed(0)
    net = StitchNet(replace(preset("guided").model, downsampling=downsampling)).eval()
    side = 64 // downsampling
    board = (torch.arange(side)[:, None] + torch.arange(side)) % 2.0
    pictures = []
    for features in (board, 1 - board, 2 * board):
        maps = features.expand(1, net.config.decoder_channels, side, side)
        monkeypatch.setattr(net.svae, "features", lambda z1, maps=maps: maps)
        with torch.no_grad():
            pictures.append(net.picture(torch.zeros(1)))
    board_styles, negative, brighter = (picture.styles.mean for picture in pictures)
    assert board_styles.shape == (1, 64, 64, K)
    assert torch.allclose(board_styles, negative, atol=1e-6)
    assert not torch.allclose(board_styles, brighter, atol=1e-4)
    assert not torch.allclose(pictures[0].log_pi, pictures[1].log_pi, atol=1e-4)


# --- Precision and device -------------------------------------------------------------------------


@cases([*OWN, *OTHERS])
def test_networks_in_half_precision_likelihood_and_kl_in_float32(
    name: str,
    term: AnyLabelTerm,
    x: Tensor,
    shared_net: Callable[[str], StitchNet],
    one_hot: OneHot,
) -> None:
    """Parameters and value of every site, its log-probability, every factor, the whole bound."""
    net = shared_net(name)
    objective = Objective(term, free_bits=0.1)
    sets = one_hot(torch.randint(0, K, x.shape))
    dtypes = []
    with (
        net.svae.decoder.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype)),
        torch.autocast("cpu", torch.bfloat16),
        torch.no_grad(),
    ):
        guide = poutine.trace(net.guide).get_trace(x, sets, objective)
        model = poutine.trace(poutine.replay(net.model, trace=guide)).get_trace(x, sets, objective)
        for trace in (guide, model):
            trace.compute_log_prob()
        picture = model.nodes["_RETURN"]["value"]
        log_pi = net.log_pi(guide.nodes["z1"]["value"])
    with torch.autocast("cpu", torch.bfloat16):
        value = bound(net, x, sets, objective).loss
    assert set(dtypes) == {torch.bfloat16}
    for trace in (guide, model):
        for site in trace.stochastic_nodes + trace.observation_nodes:
            node = trace.nodes[site]
            assert node["value"].dtype not in (torch.float16, torch.bfloat16), site
            assert node["log_prob"].dtype == torch.float32, site
    for level in range(1, 6):
        for trace in (guide, model):
            normal = trace.nodes[f"z{level}"]["fn"].base_dist
            assert normal.loc.dtype == normal.scale.dtype == torch.float32
    assert picture.log_pi.dtype == picture.styles.mean.dtype == log_pi.dtype == torch.float32
    assert value.dtype == torch.float32
    assert value.isfinite()


def test_stays_on_its_device() -> None:
    """On the meta device a tensor made on another device would raise."""
    net = StitchNet(preset("tiny").model).to("meta")
    x = torch.empty(2, 32, 32, device="meta")
    allowed = torch.empty(2, 32, 32, K, dtype=torch.bool, device="meta")
    with pyro.validation_enabled(False):
        objective = Objective(Enumerated(), free_bits=0.1)
        guide = poutine.trace(net.guide).get_trace(x, allowed, objective)
        replayed = poutine.replay(net.model, trace=guide)
        model = poutine.trace(replayed).get_trace(x, allowed, objective)
        assert model.nodes["x"]["fn"].log_prob(x).device.type == "meta"
        picture = model.nodes["_RETURN"]["value"]
        slices, rows, columns = pixel_plates((2, 32, 32))
        with slices, rows, columns:
            for term in (Marginal(), Relaxed(), Expected(), Guided()):
                with poutine.block():
                    term.infer(x, picture, allowed, picture.log_pi)
                    term.observe(x, picture, allowed)


def test_the_article_starts_with_gradients_a_hundredth_of_those_of_random_weights() -> None:
    def norm(config: ModelConfig) -> float:
        torch.manual_seed(0)
        net = StitchNet(config)
        x = torch.rand(2, 64, 64)
        allowed = functional.one_hot(torch.randint(0, 4, x.shape), 4).bool()
        bound(net, x, allowed).loss.backward()
        gradients = [p.grad.norm() for p in net.svae.encoder.parameters() if p.grad is not None]
        return float(torch.stack(gradients).norm())

    assert norm(preset("article").model) < norm(ModelConfig()) / 100
