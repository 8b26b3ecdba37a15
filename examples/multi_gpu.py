"""Train in several processes, one per GPU, equivalent to one process with the whole batch.

    stitchnet prepare FOLDER --out DATASET
    python examples/multi_gpu.py DATASET --out model.pt --processes 4
    torchrun --nproc-per-node 4 examples/multi_gpu.py DATASET --out model.pt

`stitchnet train --processes 4` does the same, and validates, selects and evaluates too.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.fabric import make_fabric
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.config import Precision
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    out: Path = Path("model.pt")
    processes: int = 1
    per_process: int = 2  # slices of each stream in a batch of one process
    precision: Precision = "32"
    steps: int = 1000
    device: str = "auto"
    seed: int = 0


def main(config: Config) -> None:
    torch.manual_seed(config.seed)  # in every process: the same draws
    fabric = make_fabric(config.device, processes=config.processes, precision=config.precision)
    fabric.launch()  # --processes 4 starts three more of this program

    tiny = preset("tiny")
    net = StitchNet(tiny.model)
    learner = ElboLearner(net, tiny.objective).to(fabric.device)
    state = State(learner, tiny.optimiser, fabric)

    dataset = Dataset(config.data)
    labelled = dataset.manifest["labelled"]
    parts = [dataset.take(np.flatnonzero(chosen)) for chosen in (labelled, ~labelled)]
    streams = TwoStreams(
        *parts,
        (config.per_process, config.per_process),
        seed=config.seed,
        rank=fabric.global_rank,  # each process makes its part of every batch
        processes=fabric.world_size,
    )
    train(state, streams.batches(), config.steps)
    if fabric.is_global_zero:
        checkpoint.save(net, config.out, steps=config.steps, seed=config.seed)
        last = state.rows[-1]
        print(f"{fabric.world_size} processes, step {last['step']}: loss {last['loss']:.4f}")
        print(f"model: {config.out}")
    fabric.barrier()


if __name__ == "__main__":
    main(tyro.cli(Config))
