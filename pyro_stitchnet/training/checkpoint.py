"""Checkpoints: the weights of a model and the configuration to build it again."""

import errno
import io
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["build", "load", "load_any", "read", "save", "write"]

FORMAT = 1


def save(net: StitchNet | SliceVAE, path: str | Path, **info: Any) -> None:
    """Write the model to ``path`` atomically.

    Args:
        net: the model.
        path: a file; its folder must exist.
        info: plain data to store with it, such as how it was trained.
    """
    content = {
        "format": FORMAT,
        "config": asdict(net.config),
        "weights": net.state_dict(),
        "info": info,
    }
    write(content, Path(path))


def build(config: ModelConfig) -> StitchNet | SliceVAE:
    """Build the networks of a configuration, with new weights.

    Raises:
        ValueError: the configuration has an unknown value.
        FileNotFoundError: its initial weights are missing.
    """
    return StitchNet(config) if config.stitched else SliceVAE(config)


def load(path: str | Path, device: torch.device | str = "cpu") -> tuple[StitchNet, dict[str, Any]]:
    """Read a StitchNet and its ``info``; no code in the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, not a checkpoint of this package and format, its weights are
            not those of the networks that it describes, or it is the SVAE alone.
    """
    net, info = load_any(path, device)
    if not isinstance(net, StitchNet):
        raise ValueError(
            f"{path}: holds the SVAE alone, which has no labels; give a model of another preset"
        )
    return net, info


def load_any(
    path: str | Path, device: torch.device | str = "cpu"
) -> tuple[StitchNet | SliceVAE, dict[str, Any]]:
    """Read a StitchNet or an SVAE and its ``info``; no code in the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as for :func:`load`.
    """
    content = read(Path(path), FORMAT, device)
    values = content["config"]
    if unknown := set(values) - {field.name for field in fields(ModelConfig)}:
        raise ValueError(
            f"{path}: written by another version of stitchnet, whose networks have "
            f"{sorted(unknown)}"
        )
    config = ModelConfig(**{**values, "channels": tuple(values["channels"])})
    # The initial weights are not needed again, and their file may be gone.
    net = build(replace(config, weights=None)).to(device)
    net.config = config
    try:
        net.load_state_dict(content["weights"])
    except RuntimeError as error:  # whose message lists hundreds of names
        raise ValueError(
            f"{path}: its weights do not fit the networks that it describes (another preset's?); "
            "use the model.pt of a run as it was written"
        ) from error
    return net.eval(), content["info"]


def write(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain data atomically."""
    file = io.BytesIO()
    torch.save(content, file)
    write_atomically(path, file.getbuffer())


def read(path: Path, format: int | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what :func:`write` wrote; no code in the file is run.

    Args:
        path: the file.
        format: required value of "format".
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
        # torch seeks a zip's directory before the start of a short file: EINVAL
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        # An unpickler may fail in any way, and torch's message advises an unsafe load.
        raise ValueError(f"{path}: damaged, or not a checkpoint of stitchnet") from error
    if not isinstance(content, dict) or content.get("format") != format:
        raise ValueError(f"{path}: not a stitchnet checkpoint of format {format!r}")
    return content
