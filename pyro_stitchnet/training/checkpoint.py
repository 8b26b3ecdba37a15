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

__all__ = ["load", "save"]

FORMAT = 1


def save(net: StitchNet, path: str | Path, **info: Any) -> None:
    """Write the model to ``path``, whole or not at all.

    Args:
        net: the model.
        path: a file; its folder must exist.
        info: plain data to keep with it (how it was trained).
    """
    content = io.BytesIO()
    config = asdict(net.config)
    torch.save(
        {"format": FORMAT, "config": config, "weights": net.state_dict(), "info": info}, content
    )
    write_atomically(Path(path), content.getvalue())


def load(path: str | Path, device: torch.device | str = "cpu") -> tuple[StitchNet, dict[str, Any]]:
    """Read a model and its ``info``; no code in the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, or not a checkpoint of this package and format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; `stitchnet train` writes one")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged, or not a checkpoint ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a stitchnet checkpoint of format {FORMAT}")
    config = ModelConfig(**{**content["config"], "channels": tuple(content["config"]["channels"])})
    # The start's weights are not needed again, and their file may be gone.
    net = StitchNet(replace(config, weights=None)).to(device)
    net.config = config
    net.load_state_dict(content["weights"])
    return net.eval(), content["info"]
