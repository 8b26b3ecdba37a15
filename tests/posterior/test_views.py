"""Flips and quarter turns: all eight, undone exactly, averaged."""

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.posterior.views import VIEWS, _back, _view, averaged


def test_the_eight_views_are_all_there_are_and_each_is_undone() -> None:
    x = torch.rand(2, 5, 5)
    views = [_view(x, view) for view in range(VIEWS)]
    assert len({tuple(v.flatten().tolist()) for v in views}) == VIEWS
    assert all(torch.equal(_back(v, view), x) for view, v in enumerate(views))
    maps = torch.rand(2, 3, 5, 5)
    assert all(torch.equal(_back(_view(maps, view), view), maps) for view in range(VIEWS))


def test_what_does_not_mind_turns_is_left_as_it_is() -> None:
    x = torch.rand(2, 8, 8)
    assert torch.allclose(averaged(lambda v: (v > 0.5).float(), x, VIEWS), (x > 0.5).float())


def test_the_mean_turns_with_the_slice() -> None:
    """An answer that minds, such as a shift to the right, no longer does."""
    x = torch.rand(1, 6, 6)

    def shifted(v: Tensor) -> Tensor:
        return v.roll(1, -1)

    turned = averaged(shifted, x.rot90(1, (-2, -1)), VIEWS)
    assert torch.allclose(turned, averaged(shifted, x, VIEWS).rot90(1, (-2, -1)), atol=1e-6)
    assert not torch.allclose(shifted(x.rot90(1, (-2, -1))), shifted(x).rot90(1, (-2, -1)))


def test_bad_views_are_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and 8"):
        averaged(lambda v: v, torch.rand(1, 4, 4), 9)
    with pytest.raises(ValueError, match="square"):
        averaged(lambda v: v, torch.rand(1, 4, 6), 2)
