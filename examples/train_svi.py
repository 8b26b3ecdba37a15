"""Train StitchNet with pyro.infer.SVI: the shortest road from a dataset to a model.

    stitchnet prepare FOLDER --out DATASET
    python examples/train_svi.py DATASET --out model.pt

`stitchnet train` does the same with a torch optimiser, and validates, selects and evaluates too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyro
import torch
import tyro
from pyro import poutine
from pyro.infer import SVI, TraceEnum_ELBO
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import Batch, TwoStreams
from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import OptimiserConfig, preset
from pyro_stitchnet.training import checkpoint


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    out: Path = Path("model.pt")
    steps: int = 1000
    seed: int = 0


def train(
    net: StitchNet, batches: Iterator[Batch], steps: int, optimiser: OptimiserConfig
) -> list[float]:
    """Return the loss of every step, in nats per pixel."""

    def model(x: Tensor, allowed: Tensor) -> None:
        pyro.module("stitchnet", net)  # SVI trains what it finds in Pyro's parameter store
        with poutine.scale(scale=1 / x.numel()):
            net.model(x, allowed)

    def guide(x: Tensor, allowed: Tensor) -> None:
        with poutine.scale(scale=1 / x.numel()):
            net.guide(x, allowed)

    pyro.clear_param_store()
    svi = SVI(
        model,
        guide,
        pyro.optim.PyroOptim(
            torch.optim.Adam,
            {"lr": optimiser.learning_rate, "fused": True},
            {"clip_norm": optimiser.clip_norm},
        ),
        TraceEnum_ELBO(max_plate_nesting=3),  # sums the labels y out
    )
    net.train()
    losses = []
    for step, batch in zip(range(steps), batches, strict=False):
        with net.svae.one_pass():  # model and guide ask the networks once, not twice
            losses.append(svi.step(batch.x, batch.allowed))
        if step % 10 == 0:
            print(f"step {step}: loss {losses[-1]:.4f} nats/pixel")
    return losses


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    article = preset("article")
    net = StitchNet(article.model)
    dataset = Dataset(config.data)
    labelled = dataset.manifest["labelled"]
    labelled, unlabelled = (dataset.take(np.flatnonzero(m)) for m in (labelled, ~labelled))
    batches = TwoStreams(labelled, unlabelled, (4, 4), seed=config.seed).batches()
    train(net, batches, config.steps, article.optimiser)
    checkpoint.save(net, config.out, steps=config.steps, seed=config.seed)
    print(f"model: {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
