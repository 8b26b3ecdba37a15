"""Checkpoints: the weights of a model and the configuration to build it again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.runtime import torch_files
from pyro_stitchnet.runtime.settings import validated

__all__ = ["build", "load", "load_any", "read", "save"]

FORMAT = 1


Hashes = Annotated[str, Field(pattern=r"^([0-9a-f]{64})*$")]


@dataclass
class _Dataset:
    preprocessing: Preprocessing | None = None


@dataclass
class _Record:
    """What commands read of a checkpoint's ``info``."""

    patients: dict[str, list[str]] = field(default_factory=dict)
    hashes: dict[str, Hashes] = field(default_factory=dict)
    dataset: _Dataset = field(default_factory=_Dataset)


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
    torch_files.write(content, Path(path))


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
        ValueError: it is damaged, not a checkpoint of this package and format, its weights are not
            those of the networks that it describes, or it is the SVAE alone.
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
    path = Path(path)
    content = read(path, FORMAT, device)
    values, weights, info = (content.get(part) for part in ("config", "weights", "info"))
    if not (isinstance(values, dict) and isinstance(weights, Mapping) and isinstance(info, dict)):
        raise ValueError(f"{path}: lacks a configuration, weights or their record; train again")
    if unknown := {str(name) for name in values} - {one.name for one in fields(ModelConfig)}:
        raise ValueError(
            f"{path}: written by another version of stitchnet, whose networks have "
            f"{sorted(unknown)}"
        )
    config = validated(ModelConfig, values, path)
    validated(_Record, info, path)
    # The initial weights are not needed again, and their file may be gone.
    with torch.device("meta"):  # shapes without numbers
        net = build(replace(config, weights=None))
    _check_weights(path, net, weights)
    net = net.to_empty(device=device)
    net.config = config
    net.load_state_dict(weights)
    if isinstance(net, StitchNet) and net.classifier is not None:
        net.classifier.pretrained = config.weights is not None
    return net.eval(), info


def read(path: Path, format: int | str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a file of this package; no code in it is run.

    Args:
        path: the file, of :func:`~pyro_stitchnet.runtime.torch_files.write`.
        format: required value of "format".
        device: where tensors go.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not of this package and format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; `stitchnet train` writes one")
    content = torch_files.read(path, device)
    if not isinstance(content, dict) or content.get("format") != format:
        raise ValueError(f"{path}: not a stitchnet checkpoint of format {format!r}")
    return content


def _check_weights(path: Path, net: StitchNet | SliceVAE, weights: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of a model, before memory is taken for it.

    Raises:
        ValueError: a weight has another name, shape or type, is not in the file, or not finite.
    """
    expected = net.state_dict()
    if weights.keys() != expected.keys() or not all(
        _fits(weights[name], shape) for name, shape in expected.items()
    ):
        raise ValueError(
            f"{path}: its weights do not fit the networks that it describes (another preset's?); "
            "use the model.pt of a run as it was written"
        )
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError(f"{path}: a weight is not finite; train again")


def _fits(weight: Any, expected: Tensor) -> bool:
    """Whether a weight has the shape and the kind of number, and its numbers are in the file."""
    return (
        isinstance(weight, Tensor)
        and weight.layout == torch.strided
        and not weight.is_meta
        and weight.shape == expected.shape
        and weight.dtype == expected.dtype
        and weight.nbytes <= weight.untyped_storage().nbytes()
    )
