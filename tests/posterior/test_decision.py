"""Labels from probabilities: the likeliest, or those of the greatest expected Dice."""

import math
from typing import get_args

import pytest
import torch

from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.posterior.decision import LEAST_CUT, best_cut, decide, without_specks
from pyro_stitchnet.posterior.options import Decision


def of(infected: torch.Tensor, consolidated: float | torch.Tensor = 0.25) -> torch.Tensor:
    """Label probabilities (N, K, H, W) of lung with these probabilities of infection."""
    parts = [0.1 * (1 - infected), 0.9 * (1 - infected)]
    return torch.stack([*parts, (1 - consolidated) * infected, consolidated * infected], 1)


def test_the_cut_takes_the_pixels_of_the_greatest_expected_dice() -> None:
    torch.manual_seed(0)
    p = torch.rand(20, 8, 8) ** torch.linspace(0.3, 2.5, 20)[:, None, None]
    for one, cut in zip(p.flatten(1), best_cut(p), strict=True):
        ordered = one.sort(descending=True).values
        expected = [2 * ordered[:k].sum() / (k + ordered.sum()) for k in range(1, len(ordered) + 1)]
        best = int(torch.stack(expected).argmax()) + 1
        assert cut > LEAST_CUT
        assert int((one >= cut).sum()) == best


def test_certain_probabilities_give_the_same_labels() -> None:
    p = of(torch.tensor([[[0.999, 0.001], [0.0, 1.0]]]))
    assert best_cut(p[:, GGO:].sum(1)).item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(decide(p, "dice"), decide(p))


def test_uncertain_probabilities_give_more_infection_of_the_same_kind() -> None:
    infected = torch.full((1, 8, 8), 0.05)
    infected[0, :4] = 0.4
    assert (decide(of(infected)) == HEALTHY).all()
    assert (decide(of(infected), "dice")[0, :4] == GGO).all()
    assert (decide(of(infected, 0.75), "dice")[0, :4] == CONSOLIDATION).all()
    assert (decide(of(infected), "dice")[0, 4:] == HEALTHY).all()


def test_a_slice_without_infection_stays_without() -> None:
    infected = 0.2 * torch.rand(1, 8, 8)
    assert best_cut(infected).item() >= LEAST_CUT
    assert (decide(of(infected), "dice") == HEALTHY).all()


def test_every_slice_has_its_own_cut() -> None:
    p = of(torch.stack([torch.full((4, 4), 0.4), torch.eye(4)]))
    both = decide(p, "dice")
    assert torch.equal(both, torch.cat([decide(one[None], "dice") for one in p]))


def test_the_likeliest_label_is_argmaxs_also_in_a_tie() -> None:
    torch.manual_seed(0)
    p = torch.randint(0, 3, (3, 4, 16, 16)) / 4
    assert torch.equal(decide(p), p.argmax(1))


def test_an_unknown_decision_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of"):
        decide(torch.rand(1, 4, 2, 2), "boldest")  # type: ignore[arg-type]


def dense(rows: list[str]) -> torch.Tensor:
    """Probabilities of one slice, (1, K, H, W): # is consolidation, the rest is GGO."""
    mask = torch.tensor([[one == "#" for one in row] for row in rows])
    return of(torch.ones(1, *mask.shape), mask.float() * 0.6 + 0.2)


def decided(p: torch.Tensor, least: float) -> torch.Tensor:
    return decide(without_specks(p, "likeliest", least))


def test_small_patches_of_consolidation_become_ggo() -> None:
    p = dense(["##..#.", "......", "#...#.", ".#...#", "..#...", "......"])  # 2, 1, 3 and 2
    kept = [int((decided(p, least) == CONSOLIDATION).sum()) for least in (0, 2, 3, 4)]
    assert kept == [8, 7, 3, 0]
    assert (decided(p, 4) == GGO).all()


@pytest.mark.parametrize("decision", get_args(Decision))
def test_nothing_else_changes(decision: Decision) -> None:
    torch.manual_seed(0)
    p = torch.randn(3, 4, 24, 24).softmax(1)
    new = without_specks(p, decision, 4)
    before, after = decide(p, decision), decide(new, decision)
    changed = before != after
    assert changed.any()
    assert (before[changed] == CONSOLIDATION).all()
    assert (after[changed] == GGO).all()
    assert torch.allclose(new.sum(1), p.sum(1))
    assert torch.allclose(new[:, GGO:].sum(1), p[:, GGO:].sum(1))
    assert torch.equal(new.movedim(1, -1)[~changed], p.movedim(1, -1)[~changed])


def test_a_patch_does_not_reach_into_the_next_slice() -> None:
    one = dense(["....", ".##.", "...."])
    both = torch.cat([one, one])
    assert (decided(both, 3) == GGO).all()
    assert torch.equal(decided(both, 2), decide(both))


def test_no_slices_have_no_patches() -> None:
    assert without_specks(torch.ones(0, 4, 8, 8), "likeliest", 5).shape == (0, 4, 8, 8)


@pytest.mark.parametrize("least", [-1, math.nan, math.inf])
def test_the_size_of_a_patch_is_a_number(least: float) -> None:
    with pytest.raises(ValueError, match="least_patch"):
        without_specks(torch.rand(1, 4, 2, 2), "likeliest", least)
