import itertools
from collections.abc import Callable

import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, infer_discrete

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import (
    AtMean,
    active_units,
    counterfactual,
    grey_check,
    likelihood_ratio,
    log_evidence,
    predict,
    redrawn,
    sample,
    segment,
    uncertainty,
)
from pyro_stitchnet.posterior.segmentation import read
from pyro_stitchnet.presets import preset


@pytest.fixture(scope="module")
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("tiny").model).train()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(5, 32, 64)


@pytest.mark.parametrize("read_out", ["prior", "posterior"])
@pytest.mark.parametrize("samples", [0, 3])
def test_shapes_and_ranges(net: StitchNet, x: torch.Tensor, read_out: str, samples: int) -> None:
    answer = segment(net, x, read_out=read_out, samples=samples, batch_size=2)  # type: ignore[arg-type]
    assert answer.probabilities.shape == answer.styles.shape == (5, 4, 32, 64)
    assert answer.stitched.shape == answer.labels.shape == (5, 32, 64)
    assert torch.allclose(answer.probabilities.sum(1), torch.ones(5, 32, 64), atol=1e-5)
    assert ((answer.styles >= 0) & (answer.styles <= 1)).all()
    picked = answer.styles.gather(1, answer.labels[:, None])[:, 0]
    assert torch.equal(picked, answer.stitched)
    assert net.training  # left as it was


@pytest.mark.parametrize("name", ["tiny", "article"])
@pytest.mark.parametrize("samples", [0, 3])
def test_predictions_are_the_probabilities_of_a_segmentation(
    name: str, x: torch.Tensor, samples: int
) -> None:
    """With one head for all maps and with one for each: on the same draws of z."""
    net = StitchNet(preset(name).model).train()
    answers = []
    for ask in (predict, lambda *a, **k: segment(*a, **k).probabilities):
        torch.manual_seed(0)
        answers.append(ask(net, x, samples=samples, batch_size=2))
    assert answers[0].shape == (5, 4, 32, 64)
    torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-4)
    assert net.training  # left as it was


def test_draws_for_the_same_slices_encode_them_once(net: StitchNet, x: torch.Tensor) -> None:
    calls = []
    with net.svae.encoder.register_forward_hook(lambda *_: calls.append(1)):
        a = predict(net, x, samples=6, batch_size=3)
    assert len(calls) == 2
    assert not torch.equal(a, predict(net, x, samples=6, batch_size=3))


def test_predictions_make_no_styles(
    net: StitchNet, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "picture", lambda z1: pytest.fail("the whole picture was made"))
    predict(net, x)


def test_batches_do_not_matter(net: StitchNet, x: torch.Tensor) -> None:
    whole, parts = segment(net, x, samples=0), segment(net, x, samples=0, batch_size=1)
    # Convolutions of another batch size round differently, and an untrained net amplifies it.
    assert torch.allclose(whole.probabilities, parts.probabilities, atol=5e-3)


def test_means_are_deterministic_and_samples_are_not(net: StitchNet, x: torch.Tensor) -> None:
    a, b = (segment(net, x, samples=0).probabilities for _ in range(2))
    assert torch.equal(a, b)
    a, b = (segment(net, x, samples=1).probabilities for _ in range(2))
    assert not torch.equal(a, b)


def test_at_mean_takes_the_mean_at_every_level(net: StitchNet, x: torch.Tensor) -> None:
    with AtMean():
        trace = poutine.trace(net.guide).get_trace(x)
    for level in range(1, 6):
        site = trace.nodes[f"z{level}"]
        assert torch.equal(site["value"], site["fn"].mean)


def test_posterior_read_out_is_pyros(net: StitchNet) -> None:
    """Bayes' rule through the styles = the frequencies of Pyro's infer_discrete."""
    net.eval()
    x = torch.rand(1, 32, 32)
    with torch.no_grad():
        guide = poutine.trace(net.guide).get_trace(x)
        expected = net.picture(guide.nodes["z1"]["value"]).responsibilities(x)
        counts = torch.zeros_like(expected)
        draws = 100
        replayed = poutine.replay(net.model, trace=guide)
        sampler = infer_discrete(replayed, first_available_dim=-4, temperature=1)
        for _ in range(draws):
            y = poutine.trace(sampler).get_trace(x).nodes["y"]["value"]
            counts += torch.nn.functional.one_hot(y.reshape(x.shape), 4)
    assert (counts / draws - expected).abs().mean() < 0.04
    assert (counts / draws - expected).mean((0, 1, 2)).abs().max() < 0.02


def test_posterior_read_out_is_pyros_enumeration(net: StitchNet) -> None:
    """Averaged over draws of z: Pyro's own marginals of the enumerated y, draw by draw."""
    x = torch.rand(2, 32, 64)
    net.eval()
    torch.manual_seed(3)
    marginals = []
    with torch.no_grad():
        for _ in range(3):
            elbo = TraceEnum_ELBO(max_plate_nesting=3)
            marginals.append(elbo.compute_marginals(net.model, net.guide, x)["y"].probs)
    torch.manual_seed(3)
    found = segment(net, x, samples=3, read_out="posterior").probabilities
    expected = torch.stack(marginals).mean(0).movedim(-1, 1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_posterior_read_out_is_that_of_all_label_maps(net: StitchNet) -> None:
    """Brute force: the joint probability of every labelling of two pixels, the rest held fixed."""
    net.eval()
    x = torch.rand(1, 32, 32)
    with torch.no_grad():
        guide = poutine.trace(net.guide).get_trace(x)
        joint = torch.zeros(4, 4)
        for one, other in itertools.product(range(4), repeat=2):
            y = torch.zeros(1, 32, 32, dtype=torch.long)
            y[0, 3, 5], y[0, 20, 30] = one, other
            told = poutine.condition(poutine.replay(net.model, trace=guide), {"y": y})
            joint[one, other] = poutine.trace(told).get_trace(x).log_prob_sum()
        everything = joint.double().flatten().softmax(0).view(4, 4)
        found = read(net, x, guide.nodes["z1"]["value"], "posterior")
    torch.testing.assert_close(found[0, 3, 5], everything.sum(1).float(), rtol=0, atol=2e-3)
    torch.testing.assert_close(found[0, 20, 30], everything.sum(0).float(), rtol=0, atol=2e-3)


def test_memory_of_draws_is_given_back(net: StitchNet, x: torch.Tensor) -> None:
    """Pictures of earlier draws are not kept: at most one answer about z of each kind at a time."""
    kept = []
    net.svae.decoder.register_forward_hook(lambda *_: kept.append(len(net.svae._answers or {})))
    segment(net, x[:1], samples=5)
    assert len(kept) == 5
    assert len(set(kept)) == 1


@pytest.mark.parametrize("name", ["guided", "article", "reference", "tiny"])
def test_bad_slices_are_refused_with_a_remedy(name: str) -> None:
    net = StitchNet(preset(name).model)
    good = torch.rand(1, 64, 64)
    nan = good.clone()
    nan[0, 0, 0] = torch.nan
    questions: dict[str, Callable[..., object]] = {
        "segment": segment,
        "predict": predict,
        "uncertainty": uncertainty,
        "sample": sample,
        "redrawn": lambda net, x: redrawn(net, x, 2),
        "counterfactual": lambda net, x: counterfactual(net, x, x.long()),
        "log_evidence": log_evidence,
        "likelihood_ratio": likelihood_ratio,
        "active_units": active_units,
        "grey_check": lambda net, x: grey_check(net, x, x.long()),
    }
    for ask in questions.values():
        with pytest.raises(ValueError, match="not a positive multiple of"):
            ask(net, torch.rand(1, 100, 64))
        with pytest.raises(ValueError, match="3 channels"):
            ask(net, torch.rand(1, 3, 64, 64))
        with pytest.raises(ValueError, match="NaN"):
            ask(net, nan)
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            ask(net, 255 * good)
    if name != "guided":
        with pytest.raises(ValueError, match="no q"):
            segment(net, good, read_out="guide")


def test_errors(net: StitchNet) -> None:
    net.train()
    with pytest.raises(ValueError, match="read_out"):
        segment(net, torch.rand(1, 32, 32), read_out="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        segment(net, torch.full((1, 32, 32), -600.0))
    with pytest.raises(ValueError, match="32 or 64"):
        segment(net, torch.rand(1, 33, 32))
    with pytest.raises(ValueError, match="samples"):
        predict(net, torch.rand(1, 32, 32), samples=-1)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        predict(net, torch.full((1, 32, 32), -600.0))
    assert net.training  # left as it was
