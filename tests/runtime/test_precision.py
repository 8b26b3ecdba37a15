"""The precision of networks on a device."""

import pytest
import torch

from pyro_stitchnet.runtime.precision import autocast, resolved

CPU = torch.device("cpu")


def test_auto_is_32_bits_where_capabilities_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolved("auto", CPU) == "32"


def test_networks_compute_in_half_precision_within() -> None:
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with autocast("bf16-mixed", CPU):
        assert layer(x).dtype == torch.bfloat16
    with autocast("32", CPU):
        assert layer(x).dtype == torch.float32


def test_16_bits_need_a_gpu() -> None:
    with pytest.raises(ValueError, match="16-mixed needs a GPU"):
        autocast("16-mixed", CPU)
