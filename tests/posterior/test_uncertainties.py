"""Entropies by hand, and their parts."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions, entropy, segment, uncertainty


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 64, 64)


def set_read_outs(monkeypatch: pytest.MonkeyPatch, *draws: dict[str, list[float]]) -> None:
    """Let the three read-outs of successive draws give these probabilities everywhere."""
    calls = itertools.count()

    def read(net: StitchNet, x: Tensor, z1: Tensor, out: str) -> Tensor:
        p = torch.tensor(draws[next(calls) // 3 % len(draws)][out])
        return p.expand(*x.shape, 4)

    monkeypatch.setattr("pyro_stitchnet.posterior.uncertainties.read", read)


def same(p: list[float]) -> dict[str, list[float]]:
    return {"prior": p, "posterior": p, "guide": p}


def test_entropy_by_hand() -> None:
    p = torch.tensor([[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0.25] * 4])
    assert torch.allclose(entropy(p), torch.tensor([math.log(2), 0.0, math.log(4)]))


def test_certain_draws_that_differ_are_mutual_information(
    guided: StitchNet, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_read_outs(monkeypatch, same([1.0, 0, 0, 0]), same([0, 1.0, 0, 0]))
    result = uncertainty(guided, x, ReadOutOptions(samples=2))
    assert torch.allclose(result.entropy, torch.tensor(math.log(2)))
    assert torch.allclose(result.mutual_information, torch.tensor(math.log(2)))
    assert result.expected_entropy.abs().max() == 0
    assert result.disagreement.abs().max() == 0


def test_uncertain_draws_that_are_equal_are_not(
    guided: StitchNet, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_read_outs(monkeypatch, same([0.5, 0.5, 0, 0]))
    result = uncertainty(guided, x, ReadOutOptions(samples=3))
    assert torch.allclose(result.expected_entropy, torch.tensor(math.log(2)))
    assert result.mutual_information.abs().max() < 1e-6


def test_disagreement_of_read_outs(
    guided: StitchNet, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = [1.0, 0, 0, 0], [0, 0, 1.0, 0]
    set_read_outs(monkeypatch, {"prior": one, "posterior": other, "guide": other})
    result = uncertainty(guided, x, ReadOutOptions(samples=2))
    assert torch.allclose(result.disagreement, torch.tensor(2 / 3))  # in two pairs out of three
    assert (result.labels == 2).all()  # of the posterior, the default


@pytest.mark.parametrize("name", ["tiny", "guided", "article"])
@pytest.mark.parametrize("views", [1, 3])
def test_it_is_that_of_the_segmentation(
    name: str, views: int, x: Tensor, shared_net: Callable[[str], StitchNet]
) -> None:
    net, options = shared_net(name), ReadOutOptions(samples=2, views=views, batch_size=2)
    torch.manual_seed(1)
    result = uncertainty(net, x, options)
    torch.manual_seed(1)
    p = segment(net, x, options).probabilities
    torch.testing.assert_close(result.probabilities, p, rtol=1e-4, atol=1e-5)
    for values in vars(result).values():
        assert values.shape in ((3, 4, 64, 64), (3, 64, 64))
        assert (values >= 0).all()
    total = result.expected_entropy + result.mutual_information
    torch.testing.assert_close(total, result.entropy, rtol=0, atol=1e-4)
    assert net.training  # its mode is restored


def test_errors(tiny: StitchNet, x: Tensor) -> None:
    with pytest.raises(ValueError, match="samples must be at least 1"):
        uncertainty(tiny, x, ReadOutOptions(samples=0))
    with pytest.raises(ValueError, match="no q"):
        uncertainty(tiny, x, ReadOutOptions(read_out="guide"))
