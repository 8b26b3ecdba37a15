import pytest
import torch
from pyro import poutine
from pyro.infer import infer_discrete

from pyro_stitchnet.posterior import AtMean, predict, segment
from pyro_stitchnet.presets import preset
from pyro_stitchnet.stitchnet import StitchNet


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
