"""Flips and quarter turns: all eight, their inverses, and averages."""

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.posterior.options import VIEWS
from pyro_stitchnet.posterior.views import _back, _view, average_views


def test_the_eight_views_differ_and_have_an_inverse() -> None:
    x = torch.rand(2, 5, 5)
    views = [_view(x, view) for view in range(VIEWS)]
    assert len({tuple(v.flatten().tolist()) for v in views}) == VIEWS
    assert all(torch.equal(_back(v, view), x) for view, v in enumerate(views))
    maps = torch.rand(2, 3, 5, 5)
    assert all(torch.equal(_back(_view(maps, view), view), maps) for view in range(VIEWS))


def test_the_average_of_an_equivariant_function_is_the_function() -> None:
    x = torch.rand(2, 8, 8)
    assert torch.allclose(average_views(lambda v: (v > 0.5).float(), x, VIEWS), (x > 0.5).float())


def test_the_average_is_equivariant() -> None:
    """Also of a function that is not, such as a shift to the right."""
    x = torch.rand(1, 6, 6)

    def shifted(v: Tensor) -> Tensor:
        return v.roll(1, -1)

    turned = average_views(shifted, x.rot90(1, (-2, -1)), VIEWS)
    assert torch.allclose(turned, average_views(shifted, x, VIEWS).rot90(1, (-2, -1)), atol=1e-6)
    assert not torch.allclose(shifted(x.rot90(1, (-2, -1))), shifted(x).rot90(1, (-2, -1)))


def test_bad_views_are_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and 8"):
        average_views(lambda v: v, torch.rand(1, 4, 4), 9)
    with pytest.raises(ValueError, match="square"):
        average_views(lambda v: v, torch.rand(1, 4, 6), 2)
