"""The device of a model, and its precision."""

from collections.abc import Mapping
from typing import Literal

import torch

__all__ = ["Precision", "choose_device", "choose_precision"]

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
