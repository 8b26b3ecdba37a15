"""Label probabilities against Pyro and brute force; batches, draws, and what is refused."""

import itertools
from collections.abc import Callable

import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, infer_discrete

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import (
    AtMean,
    ReadOut,
    ReadOutOptions,
    active_units,
    counterfactual,
    grey_check,
    likelihood_ratio,
    log_evidence,
    probabilities,
    redrawn,
    sample,
    segment,
    style_gaps,
    uncertainty,
)
from pyro_stitchnet.posterior.segmentation import read

SharedNet = Callable[[str], StitchNet]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(5, 32, 64)


@pytest.mark.parametrize("read_out", ["prior", "posterior"])
@pytest.mark.parametrize("samples", [0, 3])
def test_shapes_and_ranges(
    tiny: StitchNet, x: torch.Tensor, read_out: ReadOut, samples: int
) -> None:
    options = ReadOutOptions(read_out=read_out, samples=samples, batch_size=2)
    result = segment(tiny, x, options)
    assert result.probabilities.shape == result.styles.shape == (5, 4, 32, 64)
    assert result.stitched.shape == result.labels.shape == (5, 32, 64)
    assert torch.allclose(result.probabilities.sum(1), torch.ones(5, 32, 64), atol=1e-5)
    assert ((result.styles >= 0) & (result.styles <= 1)).all()
    picked = result.style_means.gather(1, result.labels[:, None])[:, 0]
    assert torch.equal(picked, result.stitched)
    assert tiny.training  # its mode is restored


@pytest.mark.parametrize("name", ["article", "guided"])
def test_networks_can_compute_in_half_precision(name: str, shared_net: SharedNet) -> None:
    """Their numbers are those of 32 bits up to rounding; probabilities have 32 bits."""
    net, x = shared_net(name), torch.rand(2, 64, 64)
    exact, half = ReadOutOptions(samples=0), ReadOutOptions(samples=0, precision="bf16-mixed")
    p, rounded = segment(net, x, exact).probabilities, segment(net, x, half).probabilities
    assert rounded.dtype == torch.float32
    assert not torch.equal(p, rounded)
    assert (p - rounded).abs().mean() < 0.02
    torch.testing.assert_close(probabilities(net, x, half), rounded)
    maps = uncertainty(net, x, ReadOutOptions(precision="bf16-mixed"))
    assert maps.entropy.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "read_out"),
    [
        ("tiny", "prior"),
        ("tiny", "posterior"),
        ("article", "prior"),
        ("guided", "guide"),
        ("guided", "prior"),
        ("guided", "posterior"),
    ],
)
@pytest.mark.parametrize("samples", [0, 3])
def test_probabilities_are_those_of_segment(
    name: str, read_out: ReadOut, samples: int, shared_net: SharedNet
) -> None:
    """With the same draws of z, for one head, one head per map, and pooled styles."""
    net, x = shared_net(name), torch.rand(3, 64, 64)
    options = ReadOutOptions(read_out=read_out, samples=samples, batch_size=2)
    torch.manual_seed(0)
    alone = probabilities(net, x, options)
    torch.manual_seed(0)
    whole = segment(net, x, options).probabilities
    assert alone.shape == (3, 4, 64, 64)
    torch.testing.assert_close(alone, whole, rtol=1e-3, atol=1e-4)
    assert net.training


@pytest.mark.parametrize("name", ["tiny", "guided"])
def test_the_default_read_out_is_the_posterior(name: str, shared_net: SharedNet) -> None:
    net, x = shared_net(name), torch.rand(2, 64, 64)
    for function in (probabilities, lambda *args: segment(*args).probabilities):
        results = []
        for options in (None, ReadOutOptions(), ReadOutOptions(read_out="posterior")):
            torch.manual_seed(1)
            results.append(function(net, x, options))
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


def test_the_guide_read_out_is_the_classifier_and_draws_no_z(
    guided: StitchNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, options = torch.rand(2, 64, 128), ReadOutOptions(read_out="guide")
    with torch.no_grad():
        q = guided.eval().log_q(x).exp().movedim(-1, 1)
    torch.testing.assert_close(segment(guided, x, options).probabilities, q, rtol=0, atol=1e-6)
    monkeypatch.setattr(guided.svae, "guide", lambda *_: pytest.fail("z was drawn"))
    torch.testing.assert_close(probabilities(guided, x, options), q, rtol=0, atol=1e-6)


def test_the_posterior_of_a_model_with_a_classifier_draws_no_z(
    guided: StitchNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(2, 64, 64)
    with torch.no_grad():
        expected = guided.eval().log_separated(x).exp().movedim(-1, 1)
    monkeypatch.setattr(guided.svae, "guide", lambda *_: pytest.fail("z was drawn"))
    p = probabilities(guided, x, ReadOutOptions(samples=8))
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("query", [segment, uncertainty, sample])
def test_what_does_not_depend_on_z_is_computed_once_for_all_draws(
    query: Callable[..., object], guided: StitchNet
) -> None:
    calls = []
    assert guided.levels is not None
    with guided.levels.register_forward_hook(lambda *_: calls.append(1)):
        query(guided, torch.rand(2, 64, 64), 4 if query is sample else ReadOutOptions(samples=4))
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["tiny", "guided"])
def test_views_average_the_probabilities_and_the_mean_styles_are_of_the_slice_as_it_is(
    name: str, shared_net: SharedNet
) -> None:
    net, x = shared_net(name), torch.rand(2, 64, 64)
    one, four = (segment(net, x, ReadOutOptions(samples=0, views=n)) for n in (1, 4))
    torch.testing.assert_close(one.style_means, four.style_means)
    turned = [
        probabilities(net, x.rot90(n, (-2, -1)), ReadOutOptions(samples=0)).rot90(-n, (-2, -1))
        for n in range(4)
    ]
    # Convolutions of another batch size round differently, and an untrained net amplifies it.
    torch.testing.assert_close(four.probabilities, torch.stack(turned).mean(0), rtol=0, atol=5e-3)


def test_the_views_of_one_slice_are_one_batch(guided: StitchNet) -> None:
    sizes: list[int] = []
    assert guided.classifier is not None
    with guided.classifier.register_forward_hook(lambda _, given, __: sizes.append(len(given[0]))):
        probabilities(guided, torch.rand(1, 64, 64), ReadOutOptions(views=8))
        probabilities(guided, torch.rand(3, 64, 64), ReadOutOptions(views=2, batch_size=2))
    assert sizes == [8, 2, 2, 2]


def test_queries_restore_the_mode_of_every_module(guided: StitchNet) -> None:
    guided.train()
    guided.svae.decoder.eval()
    modes = [module.training for module in guided.modules()]
    probabilities(guided, torch.rand(1, 64, 64))
    assert [module.training for module in guided.modules()] == modes


def test_draws_for_the_same_slices_encode_them_once(tiny: StitchNet, x: torch.Tensor) -> None:
    calls = []
    options = ReadOutOptions(samples=6, batch_size=3)
    with tiny.svae.encoder.register_forward_hook(lambda *_: calls.append(1)):
        p = probabilities(tiny, x, options)
    assert len(calls) == 2
    assert not torch.equal(p, probabilities(tiny, x, options))


def test_prior_probabilities_need_no_styles(
    tiny: StitchNet, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "picture", lambda z1: pytest.fail("the styles were computed"))
    probabilities(tiny, x, ReadOutOptions("prior"))


def test_batches_do_not_matter(tiny: StitchNet, x: torch.Tensor) -> None:
    whole, parts = (
        segment(tiny, x, ReadOutOptions("prior", samples=0, batch_size=size)).probabilities
        for size in (8, 1)
    )
    # Convolutions of another batch size round differently, and an untrained net amplifies it.
    assert torch.allclose(whole, parts, atol=5e-3)


def test_means_are_deterministic_and_samples_are_not(tiny: StitchNet, x: torch.Tensor) -> None:
    for samples, equal in ((0, True), (1, False)):
        one, other = (probabilities(tiny, x, ReadOutOptions(samples=samples)) for _ in range(2))
        assert torch.equal(one, other) == equal


def test_at_mean_takes_the_mean_at_every_level(tiny: StitchNet, x: torch.Tensor) -> None:
    with AtMean():
        trace = poutine.trace(tiny.guide).get_trace(x)
    for level in range(1, 6):
        site = trace.nodes[f"z{level}"]
        assert torch.equal(site["value"], site["fn"].mean)


# --- Bayes' rule ----------------------------------------------------------------------------------


def test_posterior_read_out_is_infer_discretes(tiny: StitchNet) -> None:
    """Bayes' rule through the styles gives the frequencies of Pyro's infer_discrete."""
    tiny.eval()
    x = torch.rand(1, 32, 32)
    with torch.no_grad():
        guide = poutine.trace(tiny.guide).get_trace(x)
        expected = tiny.picture(guide.nodes["z1"]["value"]).responsibilities(x)
        counts = torch.zeros_like(expected)
        draws = 100
        replayed = poutine.replay(tiny.model, trace=guide)
        sampler = infer_discrete(replayed, first_available_dim=-4, temperature=1)
        with tiny.memo.one_pass():
            for _ in range(draws):
                y = poutine.trace(sampler).get_trace(x).nodes["y"]["value"]
                counts += torch.nn.functional.one_hot(y.reshape(x.shape), 4)
    assert (counts / draws - expected).abs().mean() < 0.04
    assert (counts / draws - expected).mean((0, 1, 2)).abs().max() < 0.02


def test_posterior_read_out_is_pyros_enumeration(tiny: StitchNet) -> None:
    """Averaged over draws of z: Pyro's marginals of the enumerated y, draw by draw."""
    x = torch.rand(2, 32, 64)
    tiny.eval()
    torch.manual_seed(3)
    marginals = []
    with torch.no_grad():
        for _ in range(3):
            elbo = TraceEnum_ELBO(max_plate_nesting=3)
            marginals.append(elbo.compute_marginals(tiny.model, tiny.guide, x)["y"].probs)
    torch.manual_seed(3)
    p = segment(tiny, x, ReadOutOptions(samples=3, read_out="posterior")).probabilities
    expected = torch.stack(marginals).mean(0).movedim(-1, 1)
    torch.testing.assert_close(p, expected, rtol=1e-3, atol=1e-5)


def test_posterior_read_out_is_that_of_all_label_maps(tiny: StitchNet) -> None:
    """Brute force: the joint probability of every labelling of two pixels, the rest held fixed."""
    tiny.eval()
    x = torch.rand(1, 32, 32)
    with torch.no_grad(), tiny.memo.one_pass():
        guide = poutine.trace(tiny.guide).get_trace(x)
        joint = torch.zeros(4, 4)
        for one, other in itertools.product(range(4), repeat=2):
            y = torch.zeros(1, 32, 32, dtype=torch.long)
            y[0, 3, 5], y[0, 20, 30] = one, other
            labelled = poutine.condition(poutine.replay(tiny.model, trace=guide), {"y": y})
            joint[one, other] = poutine.trace(labelled).get_trace(x).log_prob_sum()
        every_map = joint.double().flatten().softmax(0).view(4, 4)
        p = read(tiny, x, guide.nodes["z1"]["value"], "posterior")
    torch.testing.assert_close(p[0, 3, 5], every_map.sum(1).float(), rtol=0, atol=2e-3)
    torch.testing.assert_close(p[0, 20, 30], every_map.sum(0).float(), rtol=0, atol=2e-3)


def test_earlier_draws_are_not_kept_in_memory(tiny: StitchNet, x: torch.Tensor) -> None:
    kept = []
    hook = tiny.svae.decoder.register_forward_hook(
        lambda *_: kept.append(len(tiny.memo._results or {}))
    )
    segment(tiny, x[:1], ReadOutOptions(samples=5))
    hook.remove()
    assert len(kept) == 5
    assert len(set(kept)) == 1


def test_style_gaps_by_hand() -> None:
    gaps = style_gaps(torch.tensor([0.1, 0.2, 0.5, 0.9]).expand(1, 2, 2, 4))
    assert gaps["background-healthy"] == pytest.approx(0.1, abs=1e-6)
    assert gaps["ggo-consolidation"] == pytest.approx(0.4, abs=1e-6)
    assert len(gaps) == 6
    assert set(style_gaps(torch.full((1, 2, 2, 4), 0.3)).values()) == {0.0}


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["guided", "article", "reference", "tiny"])
def test_bad_slices_are_refused_with_a_remedy(name: str, shared_net: SharedNet) -> None:
    net = shared_net(name)
    good = torch.rand(1, 64, 64)
    nan = good.clone()
    nan[0, 0, 0] = torch.nan
    queries: list[Callable[[torch.Tensor], object]] = [
        lambda x: segment(net, x),
        lambda x: probabilities(net, x),
        lambda x: uncertainty(net, x),
        lambda x: sample(net, x),
        lambda x: redrawn(net, x, 2),
        lambda x: counterfactual(net, x, x.long()),
        lambda x: log_evidence(net, x),
        lambda x: likelihood_ratio(net, x),
        lambda x: active_units(net, x),
        lambda x: grey_check(net, x, x.long()),
    ]
    for query in queries:
        with pytest.raises(ValueError, match="not a positive multiple of"):
            query(torch.rand(1, 100, 64))
        with pytest.raises(ValueError, match="3 channels"):
            query(torch.rand(1, 3, 64, 64))
        with pytest.raises(ValueError, match="NaN"):
            query(nan)
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            query(255 * good)
    if net.classifier is None:
        with pytest.raises(ValueError, match="no q"):
            probabilities(net, good, ReadOutOptions(read_out="guide"))
    assert net.training
