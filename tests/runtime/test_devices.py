"""Devices and precisions."""

import pytest
import torch

from pyro_stitchnet.runtime.devices import choose_device, choose_precision


@pytest.mark.parametrize("name", ["meta", "nonsense", "cuda:99"])
def test_unavailable_devices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="try cpu"):
        choose_device(name)


def test_auto_is_32_bits_where_capabilities_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision(torch.device("cpu")) == "32"
