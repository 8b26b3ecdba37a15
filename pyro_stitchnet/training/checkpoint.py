"""A trained model on disk: its weights and all that is needed to build it again."""

import errno
import io
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import ModelConfig
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["load", "read", "save", "write"]

FORMAT = 1


def save(net: StitchNet, path: str | Path, **info: Any) -> None:
    """Write the model to ``path``, whole or not at all.

    Args:
        net: the model.
        path: a file; its folder must exist.
        info: plain data to keep with it (how it was trained).
    """
    content = {
        "format": FORMAT,
        "config": asdict(net.config),
        "weights": net.state_dict(),
        "info": info,
    }
    write(content, Path(path))


def load(path: str | Path, device: torch.device | str = "cpu") -> tuple[StitchNet, dict[str, Any]]:
    """Read a model and its ``info``; no code in the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, not a checkpoint of this package and format, or its weights
            are not of the networks that it describes.
    """
    content = read(Path(path), FORMAT, device)
    said = content["config"]
    if unknown := set(said) - {field.name for field in fields(ModelConfig)}:
        raise ValueError(
            f"{path}: of another version of stitchnet, whose networks have {sorted(unknown)}"
        )
    config = ModelConfig(**{**said, "channels": tuple(said["channels"])})
    # The start's weights are not needed again, and their file may be gone.
    net = StitchNet(replace(config, weights=None)).to(device)
    net.config = config
    try:
        net.load_state_dict(content["weights"])
    except RuntimeError as error:  # which lists hundreds of names
        raise ValueError(
            f"{path}: its weights are not of the networks that it describes (another preset's?); "
            "take the model.pt of a run as it was written"
        ) from error
    return net.eval(), content["info"]


def write(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain data, whole or not at all."""
    file = io.BytesIO()
    torch.save(content, file)
    write_atomically(path, file.getbuffer())


def read(path: Path, format: int | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what :func:`write` wrote; no code in the file is run.

    Args:
        path: the file.
        format: what the content must say under "format".
        device: where tensors go.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, or not of this package and format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; `stitchnet train` writes one")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        # torch looks for a zip's directory before its beginning: EINVAL
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        # Any other: an unpickler fed with text fails in any way, and torch's own words advise to
        # load it unsafely.
        raise ValueError(f"{path}: damaged, or not a checkpoint of stitchnet") from error
    if not isinstance(content, dict) or content.get("format") != format:
        raise ValueError(f"{path}: not a stitchnet checkpoint of format {format!r}")
    return content
