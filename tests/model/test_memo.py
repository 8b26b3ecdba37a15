"""Results are kept within one pass, by method and tensor, and dropped after each draw."""

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.model.memo import Memo, remembered


class Network:
    """Counts its evaluations."""

    def __init__(self) -> None:
        self.memo = Memo()
        self.calls: list[str] = []

    @remembered(of="slices")
    def encode(self, x: Tensor) -> Tensor:
        self.calls.append("encode")
        return 2 * x

    @remembered(of="z")
    def decode(self, scale: int, z: Tensor) -> Tensor:
        self.calls.append("decode")
        return scale * z

    @remembered(of="z")
    def other(self, z: Tensor) -> Tensor:
        self.calls.append("other")
        return -z


@pytest.fixture
def network() -> Network:
    return Network()


def test_within_one_pass_each_result_is_computed_once(network: Network) -> None:
    x = torch.ones(2)
    with network.memo.one_pass():
        first = network.encode(x)
        assert network.encode(x) is first
    assert network.calls == ["encode"]
    assert torch.equal(first, 2 * x)


def test_outside_a_pass_nothing_is_kept(network: Network) -> None:
    x = torch.ones(2)
    with network.memo.one_pass():
        network.encode(x)
    network.encode(x)
    network.encode(x)
    assert network.calls == ["encode"] * 3


def test_nested_passes_join_the_outermost(network: Network) -> None:
    x = torch.ones(2)
    with network.memo.one_pass():
        network.encode(x)
        with network.memo.one_pass():
            network.encode(x)
        network.encode(x)
    assert network.calls == ["encode"]


def test_a_result_belongs_to_its_method_and_its_very_tensor(network: Network) -> None:
    x = torch.ones(2)
    with network.memo.one_pass():
        assert torch.equal(network.decode(3, x), 3 * x)
        assert torch.equal(network.other(x), -x)
        network.decode(3, x.clone())  # equal, but another tensor
    assert network.calls == ["decode", "other", "decode"]


def test_tensors_that_are_freed_are_not_confused_with_new_ones(network: Network) -> None:
    """An id may be used again once its tensor is freed; the memo keeps its tensors alive."""
    with network.memo.one_pass():
        results = [float(network.encode(torch.full((1,), float(v)))) for v in range(50)]
    assert results == [2.0 * v for v in range(50)]


def test_after_a_draw_only_results_for_slices_are_kept(network: Network) -> None:
    x, z = torch.ones(2), torch.zeros(2)
    with network.memo.one_pass():
        for _ in range(2):
            with network.memo.one_draw():
                network.encode(x)
                network.decode(1, z)
                network.decode(1, z)
    assert network.calls == ["encode", "decode", "decode"]
    with network.memo.one_draw():  # outside a pass
        network.decode(1, z)


def test_an_error_ends_the_pass(network: Network) -> None:
    x = torch.ones(2)

    def fail() -> None:
        with network.memo.one_pass():
            network.encode(x)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    network.encode(x)
    assert network.calls == ["encode"] * 2
