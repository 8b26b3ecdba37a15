"""Drawn slices: what they share, what differs, and by which level of z."""

from collections.abc import Callable

import pytest
import torch
from pyro import poutine

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import (
    AtMean,
    ReadOutOptions,
    Tempered,
    between,
    from_prior,
    level_effects,
    redrawn,
    sample,
    seeded,
    segment,
)
from pyro_stitchnet.presets import preset

CPU = torch.device("cpu")


@pytest.fixture(params=["tiny", "guided", "article"])
def net(request: pytest.FixtureRequest, shared_net: Callable[[str], StitchNet]) -> StitchNet:
    return shared_net(request.param)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(3, 64, 64)


def test_draws_are_stitched_from_their_own_labels_and_styles(
    net: StitchNet, x: torch.Tensor
) -> None:
    for noise in (False, True):
        draws = sample(net, x, 4, noise=noise, batch_size=2)
        assert draws.labels.shape == draws.stitched.shape == (4, 3, 64, 64)
        assert draws.styles.shape == (4, 3, 4, 64, 64)
        if noise:
            picked = draws.styles.gather(2, draws.labels[:, :, None])[:, :, 0]
            assert torch.equal(picked, draws.stitched)
        assert ((draws.stitched >= 0) & (draws.stitched <= 1)).all()
    assert net.training  # its mode is restored


def test_given_x_and_y_the_style_that_y_picks_is_x(net: StitchNet, x: torch.Tensor) -> None:
    draws = sample(net, x, 3, noise=True)
    assert torch.equal(draws.stitched, x.expand(3, -1, -1, -1))
    others = torch.nn.functional.one_hot(draws.labels, 4).movedim(-1, 2) == 0
    assert (draws.styles != x[None, :, None])[others].float().mean() > 0.9


def test_drawn_styles_show_the_slice_and_not_noise_of_their_own(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    net = StitchNet(preset("guided").model)
    for noise in (False, True):
        styles = sample(net, x, 1, noise=noise).styles[0].flatten(2)  # (N, K, pixels)
        for k in range(4):
            seen = torch.stack([styles[0, k], x[0].flatten()])
            assert torch.corrcoef(seen)[0, 1] > 0.7


def test_drawn_labels_follow_the_posterior_given_x(tiny: StitchNet, x: torch.Tensor) -> None:
    x = x[:1]
    with seeded(0, CPU):
        draws = sample(tiny, x, 200, noise=True)
    share = torch.nn.functional.one_hot(draws.labels, 4).float().mean(0)
    with seeded(0, CPU):
        options = ReadOutOptions(samples=50, read_out="posterior")
        expected = segment(tiny, x, options).probabilities.movedim(1, -1)
    assert (share - expected).abs().mean() < 0.04


def test_the_mean_of_drawn_labels_is_the_segmentation(guided: StitchNet, x: torch.Tensor) -> None:
    x = x[:1]
    draws = sample(guided, x, 60, noise=True)
    share = torch.nn.functional.one_hot(draws.labels, 4).float().mean(0)
    expected = segment(guided, x, ReadOutOptions(samples=10)).probabilities.movedim(1, -1)
    assert (share - expected).mean((0, 1, 2)).abs().max() < 0.01
    assert (share - expected).abs().mean() < 0.05


def test_draws_follow_the_seed_alone(net: StitchNet, x: torch.Tensor) -> None:
    images = []
    for seed in (1, 1, 2):
        with seeded(seed, CPU):
            images.append(sample(net, x[:1], 1, noise=True).styles)
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_a_temperature_of_0_draws_the_priors_mean(net: StitchNet) -> None:
    one, other = (from_prior(net, 2, (64, 128), temperature=0.0) for _ in range(2))
    assert one.stitched.shape == (1, 2, 64, 128)
    assert torch.equal(one.styles, other.styles)
    assert torch.equal(one.styles[:, 0], one.styles[:, 1])
    assert not torch.equal(one.styles, from_prior(net, 2, (64, 128)).styles)


def test_the_temperature_is_a_factor_on_the_spread_of_its_level_alone(tiny: StitchNet) -> None:
    tiny.eval()
    x = torch.rand(1, 64, 64)
    traces = []
    for handler in (Tempered(1.0), Tempered({5: 3.0}), AtMean()):
        torch.manual_seed(1)
        with torch.no_grad(), handler:
            traces.append(poutine.trace(tiny.guide).get_trace(x))
    draw, wider, mean = (trace.nodes["z5"]["value"] for trace in traces)
    torch.testing.assert_close(wider - mean, 3 * (draw - mean))
    assert torch.equal(mean, traces[2].nodes["z5"]["fn"].mean)


def test_with_all_levels_kept_it_is_a_draw_of_the_posterior(
    tiny: StitchNet, x: torch.Tensor
) -> None:
    with seeded(0, CPU):
        kept = redrawn(tiny, x, 0, 1)
    with seeded(0, CPU):
        posterior = sample(tiny, x, 1, read_out="prior")
    torch.testing.assert_close(kept.stitched, posterior.stitched)


def test_with_no_level_kept_it_does_not_depend_on_the_slice(tiny: StitchNet) -> None:
    black, white = torch.zeros(1, 64, 64), torch.ones(1, 64, 64)
    for level, equal in ((5, True), (4, False)):
        styles = []
        for x in (black, white):
            with seeded(0, CPU):
                styles.append(redrawn(tiny, x, level, 1).styles)
        assert torch.allclose(styles[0], styles[1], atol=1e-6) == equal


def test_the_line_between_slices_ends_at_them(net: StitchNet, x: torch.Tensor) -> None:
    line = between(net, x, 3)
    assert line.stitched.shape == (3, 2, 64, 64)
    ends = segment(net, x, ReadOutOptions(samples=0, read_out="prior")).style_means
    torch.testing.assert_close(line.styles[0], ends[:2], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(line.styles[2], ends[1:], rtol=1e-3, atol=1e-4)


def test_level_effects_has_a_row_per_level(tiny: StitchNet, x: torch.Tensor) -> None:
    effects = level_effects(tiny, x[:1], 2)
    assert list(effects) == [0, 1, 2, 3, 4, 5]
    assert all(0 <= value["labels"] <= 1 and value["grey"] >= 0 for value in effects.values())
    assert effects[5]["grey"] > 0


def test_errors(tiny: StitchNet, x: torch.Tensor) -> None:
    net = tiny
    with pytest.raises(ValueError, match="levels 1 to 5"):
        redrawn(net, x, 6)
    with pytest.raises(ValueError, match="levels 1 to 5"):
        from_prior(net, 1, (64, 64), temperature={0: 1.0})
    with pytest.raises(ValueError, match="at least 0"):
        from_prior(net, 1, (64, 64), temperature=-1.0)
    with pytest.raises(ValueError, match="64 or 96"):
        from_prior(net, 1, (64, 70))
    with pytest.raises(ValueError, match="at least 2"):
        between(net, x[:1])
    with pytest.raises(ValueError, match="at least 1"):
        sample(net, x, 0)
