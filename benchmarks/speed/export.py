"""The cost of an exported model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tyro
from measure import Measurement, Table
from torch import Tensor

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.export.programs import onnx_bytes, onnx_session, trace
from pyro_stitchnet.export.traceable import TraceableModel
from pyro_stitchnet.posterior import ReadOut
from pyro_stitchnet.training import checkpoint

EAGER = "checkpoint"


@dataclass
class Export(Measurement):
    """An exported model, compared with the checkpoint's own network.

    The last column is the largest difference of label probabilities from the checkpoint's.
    """

    model: tyro.conf.Positional[Path]
    """A checkpoint."""
    size: int = 256
    batches: tuple[int, ...] = (1, 4)
    read_outs: tuple[ReadOut, ...] = ("guide", "posterior")

    def run(self) -> None:
        self.print_origin()
        table = Table(EAGER, "difference")
        net, _ = checkpoint.load(self.model)
        for read_out in self.read_outs:
            eager = TraceableModel(net, read_out)
            program = trace(eager, self.size)
            contenders: dict[str, Callable[[Tensor], Tensor]] = {
                EAGER: eager,
                "torch.export": program.module(),
                "onnxruntime": onnx_session(onnx_bytes(program, {})),
            }
            for batch in self.batches:
                x = phantom_slices(range(batch), 1, size=self.size, seed=self.seed).images[:, None]
                with torch.no_grad():
                    times = self.time({n: partial(run, x) for n, run in contenders.items()})
                    results = {name: run(x) for name, run in contenders.items()}
                differences = {
                    name: f"{float((result - results[EAGER]).abs().max()):.1e}"
                    for name, result in results.items()
                }
                table.add(f"{read_out}, {batch} slices of {self.size}", times, differences)
