"""How fast is an exported model compared with the checkpoint, and how different are its results?

    OMP_NUM_THREADS=2 python benchmarks/export_speed.py runs/check/model.pt --size 256

Every round times each contender once, in turn. The table has the median and quartiles of the
rounds' ratios to eager, which is the checkpoint's own network under ``torch.no_grad``.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.export.programs import onnx_bytes, onnx_session, trace
from pyro_stitchnet.export.traceable import TraceableModel
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training import checkpoint


@dataclass
class Config:
    model: tyro.conf.Positional[Path]
    size: int = 256
    batches: tuple[int, ...] = (1, 4)
    read_outs: tuple[Literal["guide", "prior", "posterior"], ...] = ("guide", "posterior")
    rounds: int = 7


def main(config: Config) -> None:
    print("; ".join(f"{key} {value}" for key, value in provenance().items()), "\n")
    print("| read-out | batch | with | slices/s | time / eager's | largest difference |")
    print("|---|---:|---|---:|---:|---:|")
    net, _ = checkpoint.load(config.model)
    for read_out in config.read_outs:
        eager = TraceableModel(net, read_out)
        program = trace(eager, config.size)
        contenders = {
            "eager": eager,
            "torch.export": program.module(),
            "onnxruntime": onnx_session(onnx_bytes(program, {})),
        }
        for batch in config.batches:
            image = phantom_slices(range(batch), 1, size=config.size, seed=0).images[:, None]
            times: dict[str, list[float]] = {name: [] for name in contenders}
            results = {}
            for _ in range(config.rounds + 1):  # the first is not counted
                for name, run in contenders.items():
                    start = time.perf_counter()
                    with torch.no_grad():
                        results[name] = run(image)
                    times[name].append(time.perf_counter() - start)
            for name, taken in times.items():
                ratios = np.array(taken[1:]) / np.array(times["eager"][1:])
                low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
                apart = float((results[name] - results["eager"]).abs().max())
                print(
                    f"| {read_out} | {batch} | {name} | {batch / np.median(taken[1:]):.1f} | "
                    f"{middle:.2f} ({low:.2f}-{high:.2f}) | {apart:.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Config))
