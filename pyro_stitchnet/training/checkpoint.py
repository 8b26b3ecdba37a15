"""A trained model on disk: its weights and all that is needed to build it again."""

import io
import pickle
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from pyro_stitchnet.files import write_atomically
from pyro_stitchnet.presets import ModelConfig
from pyro_stitchnet.stitchnet import StitchNet

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
        ValueError: it is truncated, or not a checkpoint of this package and format.
    """
    content = read(Path(path), FORMAT, device)
    config = ModelConfig(**{**content["config"], "channels": tuple(content["config"]["channels"])})
    # The start's weights are not needed again, and their file may be gone.
    net = StitchNet(replace(config, weights=None)).to(device)
    net.config = config
    net.load_state_dict(content["weights"])
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
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        # torch's own words advise to load it unsafely
        raise ValueError(f"{path}: damaged, or not a checkpoint of stitchnet") from error
    if not isinstance(content, dict) or content.get("format") != format:
        raise ValueError(f"{path}: not a stitchnet checkpoint of format {format!r}")
    return content
