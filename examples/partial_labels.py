"""Training on masks of infection that do not separate ground glass from consolidation.

    stitchnet prepare FOLDER --out DATASET
    python examples/partial_labels.py DATASET --complete 4 --steps 300

Of the slices with all labels, those of some patients test, `complete` slices keep their labels, and
in the rest either lesion becomes the set {GGO, consolidation}. One model is trained on the few
alone, one on both; the Dice of the test patients is by p(y | x, z).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.datasets.splits import assign
from pyro_stitchnet.labels import CONSOLIDATION, GGO
from pyro_stitchnet.metrics.scores import slice_scores
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions, probabilities
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State

EITHER = 1 << GGO | 1 << CONSOLIDATION


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    complete: int = 4
    steps: int = 300
    seed: int = 0


def coarsened(slices: Slices, kept: int) -> Slices:
    """The same slices; after the first ``kept``, either lesion is the set of both."""
    sets = slices.label_sets.clone()
    rest = sets[kept:]  # a view
    rest[(rest & EITHER) > 0] = EITHER
    complete = [number < kept for number in range(len(slices))]
    return Slices(slices.images, sets, slices.names, slices.patients, complete)


def trained(slices: Slices, config: Config) -> StitchNet:
    torch.manual_seed(config.seed)
    tiny = preset("tiny")
    net = StitchNet(tiny.model)
    state = State(ElboLearner(net, tiny.objective), tiny.optimiser)
    batches = TwoStreams(slices, None, (4, 0), seed=config.seed).batches()
    train(state, batches, config.steps, log_every=config.steps)
    return net


def main(config: Config) -> None:
    dataset = Dataset(config.data)
    dataset = dataset.take(np.flatnonzero(dataset.complete))
    test = dataset.manifest["patient"] == dataset.patients[0]
    if dataset.manifest["patient"].nunique() >= 5:
        test = assign(dataset.manifest, seed=config.seed) == "test"
    unseen = dataset.take(np.flatnonzero(test)).load()
    mixed = coarsened(dataset.take(np.flatnonzero(~test)).load(), config.complete)
    few = mixed.take(range(min(config.complete, len(mixed))))
    for name, slices in {"complete alone": few, "and infection masks": mixed}.items():
        net = trained(slices, config)
        torch.manual_seed(config.seed)
        options = ReadOutOptions("posterior", samples=4)
        labels = probabilities(net, unseen.images, options).argmax(1)
        dice = slice_scores(unseen.labels(), labels).groupby("lesion", sort=False)["f1"].mean()
        values = ", ".join(f"{lesion} {value:.3f}" for lesion, value in dice.items())
        print(f"{len(slices)} slices, {name}: Dice {values}")


if __name__ == "__main__":
    main(tyro.cli(Config))
