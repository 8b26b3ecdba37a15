"""Train StitchNet as the article does, with pyro.infer.SVI and nothing between.

    stitchnet prepare FOLDER --out DATASET
    python examples/train_svi.py DATASET --out model.pt

Labelled slices: SVI on the model conditioned on y. Unlabelled slices: SVI on the model with y
enumerated. `stitchnet train` optimises the same bound on mixed batches, and validates, selects and
evaluates too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyro
import torch
import tyro
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
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
    net: StitchNet,
    labelled: Iterator[Batch],
    unlabelled: Iterator[Batch],
    steps: int,
    optimiser: OptimiserConfig,
) -> list[float]:
    """Alternate labelled and unlabelled steps; return their losses, in nats per pixel."""

    def model(x: Tensor, y: Tensor | None = None) -> None:
        pyro.module("stitchnet", net)  # SVI trains the parameters in Pyro's store
        program = net.model if y is None else poutine.condition(net.model, {"y": y})
        with poutine.scale(scale=1 / x.numel()):
            program(x)

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        with poutine.scale(scale=1 / x.numel()):
            net.guide(x)

    pyro.clear_param_store()
    adam = pyro.optim.PyroOptim(
        torch.optim.Adam,
        {"lr": optimiser.learning_rate, "fused": True},
        {"clip_norm": optimiser.clip_norm},
    )
    j_lab = SVI(model, guide, adam, Trace_ELBO(max_plate_nesting=3))  # eq. 9, labelled
    j_un = SVI(model, guide, adam, TraceEnum_ELBO(max_plate_nesting=3))  # eq. 9, sums y out
    net.train()
    losses = []
    for step in range(steps):
        with net.memo.one_pass():  # model and guide share the networks' results
            if step % 2 == 0:
                batch = next(labelled)
                losses.append(j_lab.step(batch.x, batch.allowed.int().argmax(-1)))
            else:
                losses.append(j_un.step(next(unlabelled).x))
        if step % 10 == 0:
            print(f"step {step}: loss {losses[-1]:.4f} nats/pixel")
    return losses


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    article = preset("article")
    net = StitchNet(article.model)
    dataset = Dataset(config.data)
    complete, labelled = dataset.manifest["complete"], dataset.manifest["labelled"]
    with_labels, without = (dataset.take(np.flatnonzero(m)) for m in (complete, ~labelled))
    train(
        net,
        TwoStreams(with_labels, None, (4, 0), seed=config.seed).batches(),
        TwoStreams(None, without, (0, 4), seed=config.seed).batches(),
        config.steps,
        article.optimiser,
    )
    checkpoint.save(net, config.out, steps=config.steps, seed=config.seed)
    print(f"model: {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
