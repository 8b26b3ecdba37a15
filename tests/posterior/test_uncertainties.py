"""Entropies by hand, and that they split."""

import math

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import entropy, segment, uncertainty
from pyro_stitchnet.presets import preset


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 64, 64)


@pytest.fixture
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("guided").model).train()


def say(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, list[float]]) -> None:
    """Let the read-outs of successive draws give these probabilities everywhere."""
    draw = {"n": 0, "asked": 0}

    def read(net: StitchNet, x: Tensor, z1: Tensor, out: str) -> Tensor:
        p = torch.tensor(answers[draw["n"] % len(answers)][out])
        draw["asked"] += 1
        if draw["asked"] % 3 == 0:
            draw["n"] += 1
        return p.expand(*x.shape, 4)

    monkeypatch.setattr("pyro_stitchnet.posterior.uncertainties.read", read)


def same(p: list[float]) -> dict[str, list[float]]:
    return {"prior": p, "posterior": p, "guide": p}


def test_entropy_by_hand() -> None:
    p = torch.tensor([[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0.25] * 4])
    assert torch.allclose(entropy(p), torch.tensor([math.log(2), 0.0, math.log(4)]))


def test_draws_that_contradict_each_other_are_mutual_information(
    net: StitchNet, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, same([1.0, 0, 0, 0]), same([0, 1.0, 0, 0]))
    found = uncertainty(net, x, samples=2)
    assert torch.allclose(found.entropy, torch.tensor(math.log(2)))
    assert torch.allclose(found.mutual_information, torch.tensor(math.log(2)))
    assert found.expected_entropy.abs().max() == 0
    assert found.disagreement.abs().max() == 0


def test_draws_that_are_unsure_alike_are_none(
    net: StitchNet, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, same([0.5, 0.5, 0, 0]))
    found = uncertainty(net, x, samples=3)
    assert torch.allclose(found.expected_entropy, torch.tensor(math.log(2)))
    assert found.mutual_information.abs().max() < 1e-6


def test_read_outs_that_disagree(
    net: StitchNet, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = [1.0, 0, 0, 0], [0, 0, 1.0, 0]
    say(monkeypatch, {"prior": one, "posterior": other, "guide": other})
    found = uncertainty(net, x, samples=2)
    assert torch.allclose(found.disagreement, torch.tensor(2 / 3))  # of two pairs out of three
    assert (found.labels == 2).all()  # the posterior's


@pytest.mark.parametrize("name", ["tiny", "guided", "article"])
@pytest.mark.parametrize("views", [1, 3])
def test_it_is_of_the_segmentation_itself(name: str, views: int, x: Tensor) -> None:
    torch.manual_seed(0)
    net = StitchNet(preset(name).model).train()
    torch.manual_seed(1)
    found = uncertainty(net, x, samples=2, views=views, batch_size=2)
    torch.manual_seed(1)
    p = segment(net, x, samples=2, views=views, batch_size=2).probabilities
    torch.testing.assert_close(found.probabilities, p, rtol=1e-4, atol=1e-5)
    for values in vars(found).values():
        assert values.shape in ((3, 4, 64, 64), (3, 64, 64))
        assert (values >= 0).all()
    split = found.expected_entropy + found.mutual_information
    torch.testing.assert_close(split, found.entropy, rtol=0, atol=1e-4)
    assert net.training  # left as it was


def test_errors(net: StitchNet, x: Tensor) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        uncertainty(net, x, samples=0)
    with pytest.raises(ValueError, match="read_out"):
        uncertainty(net, x, read_out="none")  # type: ignore[arg-type]
