"""Devices, precisions and processes: errors, and settings of torchrun."""

import pytest
import torch

from pyro_stitchnet.runtime.devices import choose_device, choose_precision, make_fabric


@pytest.mark.parametrize("name", ["meta", "nonsense", "cuda:99"])
def test_unavailable_devices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="try cpu"):
        choose_device(name)


def test_16_bit_floats_need_a_gpu() -> None:
    with pytest.raises(ValueError, match="take bf16-mixed"):
        make_fabric("cpu", precision="16-mixed")


@pytest.mark.parametrize(
    ("capabilities", "precision", "fabrics"),
    [
        ({"avx512_bf16": True}, "bf16-mixed", "bf16-mixed"),
        ({"bf16": True}, "bf16-mixed", "bf16-mixed"),
        ({"avx512_f": True, "amx_bf16": False}, "32", "32-true"),
    ],
)
def test_auto_is_bf16_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str, fabrics: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision(torch.device("cpu")) == precision
    assert make_fabric("cpu", precision="auto").strategy.precision.precision == fabrics


def test_auto_is_32_bits_where_capabilities_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision(torch.device("cpu")) == "32"


def test_processes_need_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_stitchnet.runtime.devices.choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes need a GPU each, but there are 1"):
        make_fabric("cuda", processes=2)


def test_torchrun_sets_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_WORLD_SIZE": 2, "WORLD_SIZE": 4, "RANK": 1, "LOCAL_RANK": 1,
                        "GROUP_RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1,
                        "TORCHELASTIC_RUN_ID": "a"}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    fabric = make_fabric("cpu")
    assert fabric.strategy.cluster_environment.world_size() == 4  # type: ignore[attr-defined]
    assert fabric.strategy.num_processes == 2  # type: ignore[attr-defined]
