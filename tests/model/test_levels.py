"""GGO and consolidation by grey relative to the slice's tissue levels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.model.levels import (
    PRIOR_MEAN,
    PRIOR_SLICES,
    TissueLevels,
    _median,
    _smoothed,
)

LUNG, TISSUE = 0.2, 0.8
MEANS, SPREAD = (0.3, 0.7), 0.02  # of r


@pytest.fixture
def y() -> Tensor:
    """Labels (2, 64, 64): soft tissue around a lung that holds a square of each lesion."""
    y = torch.zeros(2, 64, 64, dtype=torch.long)
    y[:, 8:56, 8:56] = HEALTHY
    y[:, 16:28, 16:28] = GGO
    y[:, 16:28, 36:48] = CONSOLIDATION
    return y


def picture(y: Tensor, gain: float = 1.0, offset: float = 0.0) -> Tensor:
    torch.manual_seed(0)
    r = torch.tensor([1.0, 0.0, *MEANS])[y] + SPREAD * torch.randn(y.shape)
    return (gain * (LUNG + (TISSUE - LUNG) * r) + offset).clamp(0, 1)


@pytest.fixture
def levels(y: Tensor, one_hot: Callable[[Tensor], Tensor]) -> TissueLevels:
    levels, many = TissueLevels(), y[:1].expand(100, 64, 64)
    levels.fit(picture(many), one_hot(many))
    return levels


def denser(scores: Tensor) -> Tensor:
    return scores[..., 1] > scores[..., 0]


def test_lesions_are_learnt_relative_to_the_slice(levels: TissueLevels) -> None:
    assert levels.mean.tolist() == pytest.approx(MEANS, abs=0.02)
    assert levels.usual.tolist() == pytest.approx([LUNG, TISSUE], abs=0.01)
    assert (levels.deviation < 5 * SPREAD).all()  # the prior's share of the variance included


def test_few_slices_leave_the_levels_near_the_prior(
    y: Tensor, one_hot: Callable[[Tensor], Tensor]
) -> None:
    levels = TissueLevels()
    levels.fit(picture(y), one_hot(y))
    for mean, prior, seen in zip(levels.mean.tolist(), PRIOR_MEAN, MEANS, strict=True):
        expected = (PRIOR_SLICES * prior + len(y) * seen) / (PRIOR_SLICES + len(y))
        assert mean == pytest.approx(expected, abs=0.01)


def test_a_slice_with_odd_lungs_hardly_changes_the_levels(
    levels: TissueLevels, y: Tensor, one_hot: Callable[[Tensor], Tensor]
) -> None:
    """Of one slice in ten, only a bright rim is labelled healthy."""
    many, before = y[:1].repeat(10, 1, 1), TissueLevels()
    before.fit(picture(many), one_hot(many))
    x, odd = picture(many), many.clone()
    odd[0][odd[0] == HEALTHY] = GGO
    odd[0, 8, 8:56] = HEALTHY
    x[0, 8, 8:56] = 0.7
    after = TissueLevels()
    after.fit(x, one_hot(odd))
    assert (after.usual - before.usual).abs().max() < 0.01
    assert (after.mean - before.mean).abs().max() < 0.05


def test_another_window_changes_nothing(
    levels: TissueLevels, y: Tensor, one_hot: Callable[[Tensor], Tensor]
) -> None:
    """In the darker window consolidation is as bright as GGO in the other."""
    p = one_hot(y).float()
    lesion = y >= GGO
    for gain, offset in ((1.0, 0.0), (0.7, 0.0), (0.7, 0.25)):
        x = picture(y, gain, offset)
        assert denser(levels(x, p))[lesion].equal(y[lesion] == CONSOLIDATION)


def test_a_label_set_says_nothing_about_lesions(y: Tensor) -> None:
    levels, before = TissueLevels(), TissueLevels()
    allowed = torch.nn.functional.one_hot(y, 4).bool()
    allowed[y >= GGO] = torch.tensor([False, False, True, True])
    levels.fit(picture(y, offset=0.05), allowed)
    assert levels.mean.equal(before.mean)
    assert levels.deviation.equal(before.deviation)
    assert not levels.usual.equal(before.usual)


def test_a_tissue_that_is_not_seen_has_its_usual_level(levels: TissueLevels, y: Tensor) -> None:
    """And a tissue of which few pixels are seen has nearly that level."""
    p = torch.nn.functional.one_hot(torch.full_like(y, CONSOLIDATION), 4).float()
    x, few = picture(y), p.clone()
    few[:, 0, :10] = torch.tensor([0.0, 1, 0, 0])  # bright pixels labelled healthy
    inner = (slice(None), slice(16, 48), slice(16, 48))
    usual = (x - levels.usual[0]) / (levels.usual[1] - levels.usual[0])
    smooth = _smoothed(usual)[inner]
    torch.testing.assert_close(levels._relative(x, p)[inner], smooth, rtol=1e-4, atol=1e-4)
    assert (levels._relative(x, few)[inner] - smooth).abs().max() < 0.1


def test_what_lies_outside_the_infection_does_not_count(
    levels: TissueLevels, y: Tensor, one_hot: Callable[[Tensor], Tensor]
) -> None:
    p, x = one_hot(y).float(), picture(y)
    other = torch.where(y == HEALTHY, x.clamp_max(LUNG), x)  # half of the lung darker, same median
    scores, changed = levels(x, p), levels(other, p)
    lesion = y >= GGO
    torch.testing.assert_close(scores[lesion], changed[lesion], rtol=0.2, atol=0.2)


def test_half_precision_networks_leave_the_likelihood_in_32_bits(
    levels: TissueLevels, y: Tensor, one_hot: Callable[[Tensor], Tensor]
) -> None:
    p, x = one_hot(y).float(), picture(y)
    expected = levels(x, p)
    with torch.autocast("cpu", torch.bfloat16):
        assert levels(x, p).equal(expected)


def test_the_median_is_torchs() -> None:
    torch.manual_seed(0)
    x, inside = torch.rand(3, 1, 501), torch.rand(3, 2, 501) > 0.5
    expected = torch.stack(
        [
            torch.stack([one[0][mask].median() for mask in two])
            for one, two in zip(x, inside, strict=True)
        ]
    )
    torch.testing.assert_close(_median(x, inside.float()), expected, rtol=0, atol=2.1e-3)


@pytest.mark.parametrize("width", [128, 512])
def test_the_smoothing_grows_with_the_slice(width: int) -> None:
    point = torch.zeros(1, width, width)
    point[0, width // 2, width // 2] = 1
    spread = _smoothed(point)[0].sum(0)
    distance = torch.arange(width) - width // 2
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    deviation = (spread * distance.square()).sum().sqrt()
    assert float(deviation) == pytest.approx(width / 128, rel=0.01)
