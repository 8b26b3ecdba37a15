"""Where a run takes place: what is refused, and what torchrun decides."""

import pytest
import torch

from pyro_stitchnet.runtime.devices import choose_device, choose_precision, make_fabric


@pytest.mark.parametrize("name", ["meta", "nonsense", "cuda:99"])
def test_devices_that_are_not_to_be_had(name: str) -> None:
    with pytest.raises(ValueError, match="try cpu"):
        choose_device(name)


def test_half_precision_of_16_bits_is_for_gpus() -> None:
    with pytest.raises(ValueError, match="take bf16-mixed"):
        make_fabric("cpu", precision="16-mixed")


@pytest.mark.parametrize(
    ("able", "wanted", "fabrics"),
    [
        ({"avx512_bf16": True}, "bf16-mixed", "bf16-mixed"),
        ({"bf16": True}, "bf16-mixed", "bf16-mixed"),
        ({"avx512_f": True, "amx_bf16": False}, "32", "32-true"),
    ],
)
def test_auto_is_bf16_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], wanted: str, fabrics: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert choose_precision(torch.device("cpu")) == wanted
    assert make_fabric("cpu", precision="auto").strategy.precision.precision == fabrics


def test_auto_is_32_bits_where_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision(torch.device("cpu")) == "32"


def test_processes_want_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_stitchnet.runtime.devices.choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes want a GPU each, but there are 1"):
        make_fabric("cuda", processes=2)


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_WORLD_SIZE": 2, "WORLD_SIZE": 4, "RANK": 1, "LOCAL_RANK": 1,
                        "GROUP_RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1,
                        "TORCHELASTIC_RUN_ID": "a"}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    fabric = make_fabric("cpu")
    assert fabric.strategy.cluster_environment.world_size() == 4  # type: ignore[attr-defined]
    assert fabric.strategy.num_processes == 2  # type: ignore[attr-defined]
