"""The device of a model."""

import torch

__all__ = ["choose_device"]


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
