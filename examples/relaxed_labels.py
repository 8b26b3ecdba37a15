"""Three ways in which y enters the bound: enumerated, in closed form, relaxed.

    stitchnet prepare FOLDER --out DATASET
    python examples/relaxed_labels.py DATASET --steps 200

First the bound of one batch with the same draws of z. `Enumerated` (a Pyro site, summed out by
TraceEnum_ELBO) and `Marginal` (the closed form) are the same number. `Relaxed` draws y from a
Gumbel-softmax and bounds the evidence of another model, whose KL includes the relaxed labels. Then
one model is trained with the closed form and one with relaxed labels, in plain torch.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import nn

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.model.label_terms import Enumerated, Marginal, Relaxed
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    steps: int = 200
    temperature: float = 0.5
    seed: int = 0


def train(objective: Objective, batches: TwoStreams, config: Config) -> list[float]:
    """The losses of a short run, in nats per pixel."""
    tiny = preset("tiny")
    torch.manual_seed(config.seed)
    net = StitchNet(tiny.model)
    adam = torch.optim.Adam(net.parameters(), tiny.optimiser.learning_rate)
    losses = []
    for _, batch in zip(range(config.steps), batches.batches(), strict=False):
        adam.zero_grad()
        loss = bound(net, batch.x, batch.allowed, objective).loss
        loss.backward()
        for parameter in net.parameters():  # tensor by tensor, see docs/model.md
            nn.utils.clip_grad_norm_(parameter, tiny.optimiser.clip_norm)
        adam.step()
        losses.append(loss.item())
    return losses


def main(config: Config) -> None:
    dataset = Dataset(config.data)
    labelled = dataset.manifest["labelled"]
    parts = [dataset.take(np.flatnonzero(rows)) for rows in (labelled, ~labelled)]
    batches = TwoStreams(parts[0], parts[1] if len(parts[1]) else None, (2, 2 * bool(parts[1])))
    tiny, temperature = preset("tiny"), config.temperature
    net, batch = StitchNet(tiny.model), batches[0]
    for labels in (Enumerated(), Marginal(), Relaxed(temperature=temperature)):
        torch.manual_seed(config.seed)
        loss = bound(net, batch.x, batch.allowed, Objective(labels)).loss
        print(f"untrained, {labels.kind}: loss {loss:.5f} nats/pixel")
    weight = 50  # as in the preset
    for term in (Marginal(weight), Relaxed(weight, temperature)):
        losses = train(replace(tiny.objective, labels=term), batches, config)
        last = losses[-max(1, config.steps // 10) :]
        print(f"trained, {term.kind}: loss {sum(last) / len(last):.4f} nats/pixel at the end")


if __name__ == "__main__":
    main(tyro.cli(Config))
