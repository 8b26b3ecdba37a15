"""Export of a checkpoint to a file whose output is verified against it."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_stitchnet.export.bundle import write_bundle
from pyro_stitchnet.export.metadata import describe
from pyro_stitchnet.export.programs import onnx_bytes, onnx_session, require, torch_bytes, trace
from pyro_stitchnet.export.traceable import TraceableModel
from pyro_stitchnet.posterior import ReadOut, ReadOutOptions, probabilities
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.training import checkpoint

__all__ = ["TOLERANCE", "Exported", "Format", "write"]

Format = Literal["torch", "onnx", "bundle"]

TOLERANCE = 1e-4
"""Largest allowed difference of an exported probability from the checkpoint's."""

SUFFIXES = {"torch": ".pt2", "onnx": ".onnx", "bundle": ""}


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        description: the file's metadata.
        difference: largest difference of its probabilities from the checkpoint's, on random slices.
    """

    description: dict[str, Any]
    difference: float


def write(
    model: str | Path,
    out: str | Path,
    *,
    format: Format = "torch",
    read_out: ReadOut = "posterior",
    size: int | None = None,
) -> Exported:
    """Export a checkpoint, completely or not at all, after comparing the outputs of both.

    Args:
        model: the checkpoint.
        out: a new file, or a new folder for a bundle; its parent folder must exist.
        format: of the file.
        read_out: as for :class:`~pyro_stitchnet.export.traceable.TraceableModel`.
        size: rows and columns of the input; None makes them dynamic.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: the checkpoint or the parent folder of ``out`` does not exist.
        ValueError: the checkpoint is damaged, lacks the read-out or cannot have this size, or a
            package for the format is not installed.
        FloatingPointError: the outputs of the exported file and the checkpoint differ.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists; remove it or choose another --out")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: its folder {out.parent} does not exist; create it first")
    if SUFFIXES[format] and out.suffix != SUFFIXES[format]:
        raise ValueError(f"{out}: a file of format {format} must end in {SUFFIXES[format]}")
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        require(package)
    net, info = checkpoint.load(model)
    traceable = TraceableModel(net, read_out)
    description = describe(traceable, info, model, size)
    program = trace(traceable, size)
    if format == "onnx":
        content = onnx_bytes(program, description)
        run = onnx_session(content)
    else:
        content = torch_bytes(program, description)
        run = torch.export.load(io.BytesIO(content)).module()
    difference = _difference(traceable, run, size)
    if not difference <= TOLERANCE:
        raise FloatingPointError(
            f"{out}: not written, because its probabilities differ from the checkpoint's by up to "
            f"{difference:.1e}; please report this with the versions of torch and onnxruntime"
        )
    if out.exists():  # by another export, while this one computed
        raise FileExistsError(f"{out}: exists; remove it or choose another --out")
    if format == "bundle":
        write_bundle(out, content, description, traceable.stride, size)
    else:
        write_atomically(out, content)
    return Exported(description, difference)


def _difference(model: TraceableModel, run: Callable[[Tensor], Tensor], size: int | None) -> float:
    """The largest difference from the model's own probabilities, on random slices."""
    generator = torch.Generator().manual_seed(0)
    options = ReadOutOptions(read_out=model.read_out, samples=0)
    differences = []
    for slices in (1, 3):
        side = size or 2 * model.stride * slices
        image = torch.rand(slices, 1, side, side, generator=generator)
        expected = probabilities(model.net, image[:, 0], options)
        with torch.no_grad():
            differences.append((run(image) - expected).abs().max())
    return float(torch.stack(differences).max())  # NaN if one is NaN
