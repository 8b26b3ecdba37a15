"""Three ways for y to enter the bound, side by side: enumerated, in closed form, relaxed.

    stitchnet prepare FOLDER --out DATASET
    python examples/relaxed_labels.py DATASET --steps 200

First the bound of one batch, with the same draws of z: "enumerated" (a Pyro site, summed out by
TraceEnum_ELBO) and "marginal" (the closed form) are one number; "relaxed" draws y from a
Gumbel-softmax and bounds the evidence of another model, whose KL is that of the relaxed labels.
Then a model is trained by the closed form and one by relaxed labels, by plain torch.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import tyro
from torch import nn

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.model.objective import negative_elbo
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import LabelTerm, preset

WAYS = [way for way in get_args(LabelTerm) if way in ("enumerated", "marginal", "relaxed")]


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    steps: int = 200
    temperature: float = 0.5
    seed: int = 0


def train(way: LabelTerm, batches: TwoStreams, config: Config) -> list[float]:
    """The losses of a short run, in nats per pixel."""
    tiny = preset("tiny")
    objective = replace(tiny.objective, labels=way, temperature=config.temperature)
    torch.manual_seed(config.seed)
    net = StitchNet(tiny.model)
    adam = torch.optim.Adam(net.parameters(), tiny.optimiser.learning_rate)
    losses = []
    for _, batch in zip(range(config.steps), batches.batches(), strict=False):
        adam.zero_grad()
        loss = negative_elbo(net, batch.x, batch.allowed, objective)
        loss.backward()
        for parameter in net.parameters():  # tensor by tensor, see docs/model.md
            nn.utils.clip_grad_norm_(parameter, tiny.optimiser.clip_norm)
        adam.step()
        losses.append(loss.item())
    return losses


def main(config: Config) -> None:
    dataset = Dataset(config.data)
    labelled = dataset.manifest["labelled"]
    parts = [dataset.take(np.flatnonzero(chosen)) for chosen in (labelled, ~labelled)]
    batches = TwoStreams(parts[0], parts[1] if len(parts[1]) else None, (2, 2 * bool(parts[1])))
    net, batch = StitchNet(preset("tiny").model), batches[0]
    for way in WAYS:
        objective = replace(preset("article").objective, labels=way, temperature=config.temperature)
        torch.manual_seed(config.seed)
        loss = negative_elbo(net, batch.x, batch.allowed, objective)
        print(f"untrained, {way}: loss {loss:.5f} nats/pixel")
    for way in ("marginal", "relaxed"):
        losses = train(way, batches, config)
        last = losses[-max(1, config.steps // 10) :]
        print(f"trained, {way}: loss {sum(last) / len(last):.4f} nats/pixel at the end")


if __name__ == "__main__":
    main(tyro.cli(Config))
