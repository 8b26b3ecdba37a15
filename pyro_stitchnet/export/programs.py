"""The segmenter as a torch program (`.pt2`) and as an ONNX model, each the content of a file."""

import io
import json
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from pyro_stitchnet.export.traceable import TraceableSegmenter

__all__ = ["METADATA", "log_gamma", "needed", "onnx_bytes", "session", "torch_bytes", "trace"]

METADATA = "metadata.json"
"""Name of the description within a `.pt2`."""


def trace(segmenter: TraceableSegmenter, size: int | None = None) -> ExportedProgram:
    """The segmenter as a graph for any number of slices.

    Args:
        segmenter: what to trace.
        size: rows and columns; None leaves them free, from twice the segmenter's stride on, which
            takes several times as long to trace.

    Raises:
        ValueError: the size is no multiple of the stride.
    """
    stride = segmenter.stride
    if size is not None and (size < stride or size % stride):
        raise ValueError(f"size {size} is not a positive multiple of {stride}")
    shape = (2, 1, size or 2 * stride, size or 3 * stride)
    free: dict[int, Any] = {0: Dim("slices")}
    if size is None:
        free |= {2: stride * Dim("rows", min=2), 3: stride * Dim("columns", min=2)}
    like = next(segmenter.parameters())
    # Pyro's checks look at values, of which a traced tensor has none.
    with torch.no_grad(), pyro.validation_enabled(False):
        return torch.export.export(
            segmenter, (torch.zeros(shape, device=like.device),), dynamic_shapes=(free,)
        )


def torch_bytes(program: ExportedProgram, about: Mapping[str, Any]) -> bytes:
    """The content of a `.pt2` file, with ``about`` under the name :data:`METADATA`.

    ``torch.export.load`` reads it on a machine that has torch alone.
    """
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(about, indent=2)})
    return file.getvalue()


def onnx_bytes(program: ExportedProgram, about: Mapping[str, Any]) -> bytes:
    """The content of an ONNX file, checked, with ``about`` among its properties, each as JSON.

    Raises:
        ValueError: onnx or onnxscript is not installed.
    """
    onnx = needed("onnx")
    needed("onnxscript")
    lgamma = torch.ops.aten.lgamma.default
    if any(node.target is lgamma for node in program.graph.nodes):
        program = program.run_decompositions({lgamma: log_gamma})  # ONNX has no operator for it
    exported = torch.onnx.export(
        program, dynamo=True, input_names=["image"], output_names=["probabilities"], verbose=False
    )
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def session(content: bytes | str) -> Callable[[Tensor], Tensor]:
    """An ONNX model as a function of slices, run by onnxruntime on the CPU.

    Args:
        content: of the file, or its path.

    Raises:
        ValueError: onnxruntime is not installed.
    """
    onnxruntime = needed("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    running = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(running.run(None, {"image": image.numpy()})[0])


def needed(package: str) -> Any:
    """The optional package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{error}; install what ONNX needs with `pip install 'pyro-stitchnet[export]'`"
        ) from None


def log_gamma(x: Tensor) -> Tensor:
    """log Gamma of ``x`` > 0 by Stirling's series eight further on, in float64.

    Its error is below 1e-9, that of torch's in float32 up to 3e-5 for the precisions that styles
    may have (200).
    """
    wide = x.double()
    product = wide
    for step in range(1, 8):
        product = product * (wide + step)
    far = wide + 8
    inverse = 1 / far
    tail = inverse * (1 / 12 - inverse**2 * (1 / 360 - inverse**2 / 1260))
    series = (far - 0.5) * far.log() - far + 0.5 * math.log(2 * math.pi) + tail
    return (series - product.log()).to(x.dtype)
