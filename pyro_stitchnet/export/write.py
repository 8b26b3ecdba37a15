"""From a checkpoint to an exported file that is known to say the same."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pyro_stitchnet.export.bundle import write_bundle
from pyro_stitchnet.export.metadata import describe
from pyro_stitchnet.export.programs import needed, onnx_bytes, session, torch_bytes, trace
from pyro_stitchnet.export.traceable import TraceableSegmenter
from pyro_stitchnet.posterior import ReadOut, segment
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.training import checkpoint

__all__ = ["TOLERANCE", "Format", "Written", "write"]

Format = Literal["torch", "onnx", "bundle"]

TOLERANCE = 1e-4
"""How far an exported probability may be from the checkpoint's."""

SUFFIXES = {"torch": ".pt2", "onnx": ".onnx", "bundle": ""}


@dataclass(frozen=True)
class Written:
    """What was exported.

    Attributes:
        about: what the file says of itself.
        difference: the largest of its probabilities from the checkpoint's, on random slices.
    """

    about: dict[str, Any]
    difference: float


def write(
    model: str | Path,
    out: str | Path,
    *,
    format: Format = "torch",
    read_out: ReadOut | None = None,
    size: int | None = None,
) -> Written:
    """Export a checkpoint's segmenter, whole or not at all, once it has been compared with it.

    Args:
        model: the checkpoint.
        out: the file, or a bundle's folder; must not exist, the folder it is in must.
        format: of the file.
        read_out: as for :class:`~pyro_stitchnet.export.traceable.TraceableSegmenter`.
        size: rows and columns; None leaves them free.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: there is no such checkpoint, or no folder for ``out``.
        ValueError: the checkpoint is damaged or of another kind, an option does not fit it, or a
            package that the format needs is not installed.
        FloatingPointError: what was exported differs from the checkpoint.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists; remove it or choose another --out")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: its folder {out.parent} does not exist; create it first")
    if SUFFIXES[format] and out.suffix != SUFFIXES[format]:
        raise ValueError(f"{out}: a file of format {format} must end in {SUFFIXES[format]}")
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        needed(package)
    net, info = checkpoint.load(model)
    segmenter = TraceableSegmenter(net, read_out)
    about = describe(segmenter, info, model, size)
    program = trace(segmenter, size)
    if format == "onnx":
        content = onnx_bytes(program, about)
        run = session(content)
    else:
        content = torch_bytes(program, about)
        run = torch.export.load(io.BytesIO(content)).module()
    difference = _difference(segmenter, run, size)
    if not difference <= TOLERANCE:
        raise FloatingPointError(
            f"{out}: not written, its probabilities would differ from the checkpoint's by up to "
            f"{difference:.1e}; please report this with the versions of torch and onnxruntime"
        )
    if format == "bundle":
        write_bundle(out, content, about, segmenter.stride, size)
    else:
        write_atomically(out, content)
    return Written(about, difference)


def _difference(
    segmenter: TraceableSegmenter, run: Callable[[Tensor], Tensor], size: int | None
) -> float:
    """The largest difference from what the model itself says, on random slices."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for slices in (1, 3):
        side = size or 2 * segmenter.stride * slices
        image = torch.rand(slices, 1, side, side, generator=generator)
        answer = segment(segmenter.net, image[:, 0], samples=0, read_out=segmenter.read_out)
        with torch.no_grad():
            found = (run(image) - answer.probabilities).abs().max()
        worst = max(worst, float(found))
    return worst
