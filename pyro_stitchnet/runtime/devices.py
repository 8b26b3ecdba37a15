"""The device of a model, and the processes of a training run."""

import atexit
import os
from collections.abc import Mapping
from typing import Literal

import torch
from lightning_fabric import Fabric

from pyro_stitchnet.runtime.distributed import leave

__all__ = ["Precision", "choose_device", "choose_precision", "make_fabric"]

Precision = Literal["auto", "32", "bf16-mixed", "16-mixed"]
"""Precision of the networks; "auto" is bf16-mixed where the device computes in bf16, else 32."""

BF16 = "amx_bf16", "avx512_bf16", "bf16"  # names of the CPU feature; the last is of ARM


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" is a GPU if there is one.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if name == "meta":
        raise ValueError("device 'meta' holds no numbers; try cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not available ({error}); try cpu") from error
    return device


def choose_precision(device: torch.device) -> Literal["32", "bf16-mixed"]:
    """Return the faster precision of a device: "bf16-mixed" if it computes in bf16, else "32".

    Processors without bf16 instructions emulate them, which is slower than 32 bits.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older versions of torch have no such function; 32 bits work everywhere.
        able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = device.type == "cpu" and any(able.get(name) for name in BF16)
    return "bf16-mixed" if native else "32"


def make_fabric(
    device: str = "auto", *, processes: int = 1, nodes: int = 1, precision: Precision = "32"
) -> Fabric:
    """Return the processes of a training run, not yet launched.

    Under torchrun the numbers of processes and machines are those of torchrun.

    Args:
        device: as for :func:`choose_device`.
        processes: on this machine, one per GPU.
        nodes: number of machines.
        precision: of the networks; "16-mixed" needs a GPU, "auto" is :func:`choose_precision`.

    Raises:
        ValueError: there is no such device on this machine, or there are fewer than ``processes``.
    """
    if "LOCAL_WORLD_SIZE" in os.environ:
        processes = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // processes
    kind, index = (chosen := choose_device(device)).type, chosen.index
    if kind != "cuda" and precision == "16-mixed":
        raise ValueError(f"precision 16-mixed needs a GPU, not {kind}; take bf16-mixed")
    if kind == "cuda" and processes > torch.cuda.device_count():
        raise ValueError(
            f"{processes} processes need a GPU each, but there are {torch.cuda.device_count()}"
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
