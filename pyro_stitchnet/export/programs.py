"""A model as a torch program (``.pt2``) and as an ONNX model, as the bytes of a file."""

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

from pyro_stitchnet.export.traceable import TraceableModel

__all__ = [
    "METADATA", "log_gamma", "onnx_bytes", "onnx_session", "require", "torch_bytes", "trace",
]  # fmt: skip

METADATA = "metadata.json"
"""Name of the metadata within a ``.pt2`` file."""


def trace(model: TraceableModel, size: int | None = None) -> ExportedProgram:
    """Trace a model as a graph for any number of slices.

    Args:
        model: the model.
        size: rows and columns; None makes them dynamic, at least twice the model's stride. This
            takes several times as long to trace.

    Raises:
        ValueError: the size is not a multiple of the stride.
    """
    stride = model.stride
    if size is not None and (size < stride or size % stride):
        raise ValueError(f"size {size} is not a positive multiple of {stride}")
    shape = (2, 1, size or 2 * stride, size or 3 * stride)
    dynamic: dict[int, Any] = {0: Dim("slices")}
    if size is None:
        dynamic |= {2: stride * Dim("rows", min=2), 3: stride * Dim("columns", min=2)}
    device = next(model.parameters()).device
    # Pyro's validation reads values, which traced tensors do not have.
    with torch.no_grad(), pyro.validation_enabled(False):
        return torch.export.export(
            model, (torch.zeros(shape, device=device),), dynamic_shapes=(dynamic,)
        )


def torch_bytes(program: ExportedProgram, description: Mapping[str, Any]) -> bytes:
    """The content of a ``.pt2`` file, with the description under the name :data:`METADATA`.

    ``torch.export.load`` reads it; only torch is required.
    """
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(description, indent=2)})
    return file.getvalue()


def onnx_bytes(program: ExportedProgram, description: Mapping[str, Any]) -> bytes:
    """The content of a checked ONNX file, with the description as properties in JSON.

    Raises:
        ValueError: onnx or onnxscript is not installed.
    """
    onnx = require("onnx")
    require("onnxscript")
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["image"],
        output_names=["probabilities"],
        custom_translation_table={torch.ops.aten.lgamma.default: log_gamma},
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(
        model, {key: json.dumps(value) for key, value in description.items()}
    )
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def onnx_session(content: bytes | str) -> Callable[[Tensor], Tensor]:
    """An ONNX model as a function of slices (N, 1, H, W), run by onnxruntime on the CPU.

    Args:
        content: the content of the file, or its path.

    Raises:
        ValueError: onnxruntime is not installed.
    """
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def require(package: str) -> Any:
    """Import an optional package.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{error}; install the packages for ONNX with `pip install 'pyro-stitchnet[export]'`"
        ) from None


def log_gamma(x: Any) -> Any:
    """Write log Gamma(x), x > 0 in float32, in operators of ONNX, which has none of its own.

    It is Stirling's series at x + 8 in float64. Its error is below 1e-9 before it is rounded; that
    of torch in float32 is up to 3e-5 for the largest precision of the styles (200).
    """
    onnx, op = require("onnx"), require("onnxscript").opset18

    def number(value: float) -> Any:
        return op.Constant(value=onnx.helper.make_tensor("", onnx.TensorProto.DOUBLE, (), [value]))

    wide = op.Cast(x, to=onnx.TensorProto.DOUBLE)
    product = wide
    for step in range(1, 8):
        product = product * (wide + number(step))
    far = wide + number(8)
    inverse = op.Reciprocal(far)
    square = inverse * inverse
    tail = inverse * (number(1 / 12) - square * (number(1 / 360) - square * number(1 / 1260)))
    series = (far - number(0.5)) * op.Log(far) - far + number(0.5 * math.log(2 * math.pi)) + tail
    return op.Cast(series - op.Log(product), to=onnx.TensorProto.FLOAT)
