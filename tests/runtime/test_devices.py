"""Devices and precisions."""

import pytest

from pyro_stitchnet.runtime.devices import choose_device


@pytest.mark.parametrize("name", ["meta", "nonsense", "cuda:99"])
def test_unavailable_devices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="try cpu"):
        choose_device(name)
