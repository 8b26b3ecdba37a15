"""Where a model runs: one device, or the processes of a training run."""

import atexit
import os
from collections.abc import Mapping
from typing import Literal

import torch
from lightning_fabric import Fabric

from pyro_stitchnet.runtime.distributed import leave
from pyro_stitchnet.training.config import Precision

__all__ = ["choose_device", "choose_precision", "make_fabric"]

BF16 = "amx_bf16", "avx512_bf16", "bf16"  # what processors call it, ARM's last


def choose_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is a GPU if there is one.

    Raises:
        ValueError: there is no such device here.
    """
    if name == "meta":
        raise ValueError("device 'meta' holds no numbers; try cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not to be had here ({error}); try cpu") from error
    return device


def choose_precision(device: torch.device) -> Literal["32", "bf16-mixed"]:
    """The faster precision on a device: "bf16-mixed" where it computes in bf16, "32" elsewhere.

    Processors without such instructions emulate them, more slowly than 32 bits.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older torch does not tell; 32 bits are right everywhere.
        able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = device.type == "cpu" and any(able.get(name) for name in BF16)
    return "bf16-mixed" if native else "32"


def make_fabric(
    device: str = "auto", *, processes: int = 1, nodes: int = 1, precision: Precision = "32"
) -> Fabric:
    """The processes of a training run, not yet launched.

    Under torchrun their numbers are what torchrun says.

    Args:
        device: as for :func:`choose_device`.
        processes: on this machine, one a GPU.
        nodes: machines.
        precision: of the networks; "16-mixed" is for GPUs, "auto" as :func:`choose_precision` says.

    Raises:
        ValueError: there is no such device here, or not so many of them.
    """
    if "LOCAL_WORLD_SIZE" in os.environ:
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // processes
    kind, index = (chosen := choose_device(device)).type, chosen.index
    if kind != "cuda" and precision == "16-mixed":
        raise ValueError(f"precision 16-mixed needs a GPU, not {kind}; take bf16-mixed")
    if kind == "cuda" and processes > torch.cuda.device_count():
        raise ValueError(
            f"{processes} processes want a GPU each, but there are {torch.cuda.device_count()}"
        )
    if index is not None and processes > 1:
        raise ValueError(f"{processes} processes cannot share {device}; take --device {kind}")
    bits = choose_precision(chosen) if precision == "auto" else precision
    several = processes * nodes > 1
    if several:
        atexit.register(leave)
    return Fabric(
        accelerator=kind,
        devices=processes if index is None or kind == "cpu" else [index],
        num_nodes=nodes,
        strategy="ddp" if several else "auto",
        precision="32-true" if bits == "32" else bits,
    )
