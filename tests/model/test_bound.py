"""The terms of a bound, from the pass that computed it."""

from collections.abc import Callable

import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.bound import Bound, bound
from pyro_stitchnet.model.label_terms import Enumerated, Guided, Marginal
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet

K = len(LABELS)


@pytest.fixture
def net(shared_net: Callable[[str], StitchNet]) -> StitchNet:
    return shared_net("tiny")


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 64, 64)


@pytest.fixture
def allowed(x: Tensor, one_hot: Callable[[Tensor], Tensor]) -> Tensor:
    """One label, the set of lesions, and all labels, in thirds of the pixels."""
    sets = one_hot(torch.randint(K, x.shape))
    third = torch.randint(3, x.shape)
    sets[third == 1] = torch.tensor([False, False, True, True])
    sets[third == 2] = True
    return sets


def seeded_bound(net: StitchNet, x: Tensor, allowed: Tensor | None, seed: int = 0) -> Bound:
    torch.manual_seed(seed)
    return bound(net, x, allowed, Objective(Marginal()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x * 255, r"in \[0, 1\]"),
        (lambda x: x - 1, r"in \[0, 1\]"),
        (Tensor.double, r"must be torch\.float32"),
        (lambda x: (x * 255).byte(), r"must be torch\.float32"),
        (lambda x: x[:0], r"shape \(N, H, W\), N at least 1"),
        (lambda x: x[:, :63], "slice height 63"),
    ],
)
def test_what_are_no_slices_is_refused(
    net: StitchNet, x: Tensor, change: Callable[[Tensor], Tensor], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        bound(net, change(x))
    with pytest.raises(TypeError, match="must be a tensor, got ndarray"):
        bound(net, x.numpy())  # type: ignore[arg-type]


def test_terms_are_those_of_pyros_traces(net: StitchNet, x: Tensor, allowed: Tensor) -> None:
    result = seeded_bound(net, x, allowed)
    torch.manual_seed(0)
    with torch.no_grad():
        guide = poutine.trace(net.guide).get_trace(x, allowed)
        model = poutine.trace(poutine.replay(net.model, trace=guide)).get_trace(x, allowed)
    picture = model.nodes["_RETURN"]["value"]
    assert torch.equal(result.z1.detach(), guide.nodes["z1"]["value"])
    log_py = (picture.log_pi.exp() * allowed).sum(-1).log()
    torch.testing.assert_close(result.log_py, log_py, rtol=1e-4, atol=1e-4)
    joint = picture.given(allowed).log_prob(x)
    torch.testing.assert_close(result.log_px + result.log_py, joint, rtol=1e-4, atol=1e-4)
    for level in range(1, 6):
        q, p = (trace.nodes[f"z{level}"]["fn"] for trace in (guide, model))
        expected = kl_divergence(q, p).sum() / x.numel()
        assert float(result.kl[level]) == pytest.approx(float(expected), rel=1e-4)


def test_terms_add_up_to_the_loss(net: StitchNet, x: Tensor, allowed: Tensor) -> None:
    """log_px + log_py - kl is the ELBO, but for the sampling of the KL."""
    totals, losses = [], []
    for seed in range(8):
        result = seeded_bound(net, x, allowed, seed)
        totals.append(
            float((result.log_px + result.log_py).mean()) - float(sum(result.kl.values()))
        )
        losses.append(float(result.loss.detach()))
    assert sum(totals) / 8 == pytest.approx(-sum(losses) / 8, abs=0.02)


def test_without_annotations_log_py_is_zero(net: StitchNet, x: Tensor) -> None:
    nothing, everything = (
        seeded_bound(net, x, sets) for sets in (None, torch.ones(*x.shape, K).bool())
    )
    assert not nothing.log_py.any()
    assert everything.log_py.abs().max() < 1e-6
    torch.testing.assert_close(nothing.log_px, everything.log_px, rtol=0, atol=1e-5)


def test_an_enumerated_model_has_the_same_terms(net: StitchNet, x: Tensor, allowed: Tensor) -> None:
    marginal = seeded_bound(net, x, allowed)
    torch.manual_seed(0)
    enumerated = bound(net, x, allowed, Objective(Enumerated()))
    assert torch.equal(marginal.log_px, enumerated.log_px)
    assert marginal.kl == enumerated.kl


def test_the_default_is_the_articles_objective(net: StitchNet, x: Tensor) -> None:
    losses = []
    for objective in (None, Objective(Enumerated(label_weight=1))):
        torch.manual_seed(0)
        losses.append(bound(net, x, None, objective).loss)
    assert torch.equal(*losses)


def test_log_q_replaces_the_classifiers(
    shared_net: Callable[[str], StitchNet], x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, objective = shared_net("guided"), Objective(Guided())
    with torch.no_grad():
        log_q = net.log_q(x)
    losses = []
    for given in (None, log_q, torch.full_like(log_q, 0.25).log()):
        torch.manual_seed(0)
        losses.append(bound(net, x, None, objective, log_q=given).loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0] != pytest.approx(losses[2], abs=1e-6)
    monkeypatch.setattr(net.classifier, "forward", lambda x: pytest.fail("it was evaluated"))
    bound(net, x, None, objective, log_q=log_q)


def test_every_network_is_evaluated_once(shared_net: Callable[[str], StitchNet], x: Tensor) -> None:
    net, calls = shared_net("guided"), dict[str, int]()

    def count(name: str) -> Callable[..., None]:
        return lambda *_: calls.__setitem__(name, calls.get(name, 0) + 1)

    parts: dict[str, nn.Module | None] = {
        "encoder": net.svae.encoder,
        "decoder": net.svae.decoder,
        "classifier": net.classifier,
    }
    parts |= {f"head {i}": head for i, head in enumerate(net.heads)}
    hooks = [
        part.register_forward_hook(count(name)) for name, part in parts.items() if part is not None
    ]
    result = bound(net, x, None, Objective(Guided()))
    assert result.log_px.isfinite().all()
    assert all(result.kl[level].isfinite() for level in range(1, 6))
    for hook in hooks:
        hook.remove()
    assert calls == dict.fromkeys(parts, 1)
