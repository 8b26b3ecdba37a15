"""The precision of the networks; likelihoods and KL are computed in 32 bits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the help of a command needs no torch
    import torch

__all__ = ["Precision", "autocast", "resolved"]

Precision = Literal["auto", "32", "bf16-mixed", "16-mixed"]
"""Precision of the networks; "auto" is bf16-mixed where the device computes in bf16, else 32."""

BF16 = "amx_bf16", "avx512_bf16", "bf16"  # names of the CPU feature; the last is of ARM


def resolved(precision: Precision, device: torch.device) -> Literal["32", "bf16-mixed", "16-mixed"]:
    """Return the precision on a device.

    "auto" is bf16-mixed on a GPU or a processor with instructions for it. Other processors emulate
    bf16, which is slower than 32 bits.

    Raises:
        ValueError: 16-mixed without a GPU.
    """
    import torch

    if device.type != "cuda" and precision == "16-mixed":
        raise ValueError(f"precision 16-mixed needs a GPU, not {device.type}; take bf16-mixed")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older versions of torch have no such function; 32 bits work everywhere.
        able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = device.type == "cpu" and any(able.get(name) for name in BF16)
    return "bf16-mixed" if native else "32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which networks compute at a precision.

    That of 32 bits changes nothing, so it can stand within another one.

    Raises:
        ValueError: 16-mixed without a GPU.
    """
    import torch

    bits = resolved(precision, device)
    if bits == "32":
        return nullcontext()
    return torch.autocast(device.type, torch.float16 if bits == "16-mixed" else torch.bfloat16)
