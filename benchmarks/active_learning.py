"""Does labelling the slices that the model is least certain of save labels? On phantoms.

    python benchmarks/active_learning.py --weights IMAGENET.pt --out runs/active_learning

A few slices of a pool are labelled at the start. In each round more are labelled and training
continues from the weights of the round before, as with `stitchnet rank` and `train --start`. One
arm labels the slices whose predicted labels have the largest entropy, at most three per patient and
round; the other labels random slices. Both start with the same labels and weights. Prints lesion
Dice on slices of unseen patients, the difference of the arms by patient and seed with its 95 %
interval, and how many labels the first arm saves to reach the final Dice of the second.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from settings import keep_settings

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.evaluation.benchmark.columns import dice_by_patient
from pyro_stitchnet.metrics.scores import slice_scores
from pyro_stitchnet.metrics.statistics import interval, paired
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions, entropy, seeded
from pyro_stitchnet.posterior import probabilities as label_probabilities
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.training.fit import STATISTICS
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State

ARMS = ("least certain", "random")


@dataclass
class Config:
    out: Path = Path("runs/active_learning")
    seeds: tuple[int, ...] = (0, 1, 2)
    size: int = 64
    pool: int = 60  # patients, four slices each
    unseen: int = 30  # patients, two slices each
    first: int = 6  # labelled slices at the start
    more: int = 6  # in each round
    rounds: int = 4
    steps: int = 150  # a round
    per_patient: int = 3
    preset: str = "guided"
    weights: str | None = None  # of MobileNetV2; few steps from a random start find no lesion


def probabilities(net: StitchNet, x: torch.Tensor) -> torch.Tensor:
    read_out = "prior" if net.classifier is None else "guide"
    with seeded(0, x.device):
        return label_probabilities(net, x, ReadOutOptions(read_out, samples=4))


def dice(net: StitchNet, slices: Slices) -> pd.Series:
    """Mean Dice of the two lesions, by patient."""
    labels = probabilities(net, slices.images).argmax(1)
    return dice_by_patient(slice_scores(slices.labels(), labels, slices.names, slices.patients))


def least_certain(net: StitchNet, pool: Slices, labelled: list[int], config: Config) -> list[int]:
    total = entropy(probabilities(net, pool.images)).sum((1, 2)).numpy()
    chosen: list[int] = []
    for i in np.argsort(-total).tolist():
        same = sum(pool.patients[j] == pool.patients[i] for j in chosen)
        if i not in labelled and same < config.per_patient and len(chosen) < config.more:
            chosen.append(i)
    return chosen


def run(arm: str, seed: int, config: Config) -> list[dict[str, object]]:
    start = 1000 * seed
    pool = phantom_slices(range(start, start + config.pool), 4, size=config.size)
    last = start + config.pool
    unseen = phantom_slices(range(last, last + config.unseen), 2, size=config.size)
    rng = np.random.default_rng(seed)
    labelled = rng.permutation(len(pool))[: config.first].tolist()
    torch.manual_seed(seed)
    chosen = preset(config.preset)
    net = StitchNet(replace(chosen.model, weights=config.weights))
    rows: list[dict[str, object]] = []
    for number in range(config.rounds + 1):
        if number and arm == "random":
            rest = [i for i in rng.permutation(len(pool)).tolist() if i not in labelled]
            labelled += rest[: config.more]
        elif number:
            labelled += least_certain(net, pool, labelled, config)
        others = [i for i in range(len(pool)) if i not in labelled]
        learner = ElboLearner(net, chosen.objective)
        if not number:
            learner.begin(pool.take(labelled), steps=config.steps)
        state = State(learner, chosen.optimiser)
        streams = TwoStreams(
            pool.take(labelled), pool.take(others), (4, 2), seed=seed, affine=True, paste=0.5
        )
        train(
            state,
            streams.batches(),
            config.steps,
            log_every=config.steps,
            fast=True,
            statistics=[streams[i] for i in range(STATISTICS)],
        )
        for patient, value in dice(net, unseen).items():
            key = {"seed": seed, "arm": arm, "labels": len(labelled), "patient": patient}
            rows.append({**key, "dice": value})
        print(arm, seed, len(labelled), round(float(dice(net, unseen).mean()), 4), flush=True)
    return rows


def report(table: pd.DataFrame, config: Config) -> None:
    by = table.groupby(["arm", "labels"])["dice"]
    print(by.mean().unstack("arm").round(3).to_string())
    ends = table[table["labels"] > config.first].set_index(["seed", "patient", "labels", "arm"])
    sides = ends["dice"].unstack("arm").groupby(["seed", "patient"]).mean()
    result = paired(sides["least certain"], sides["random"])
    print(
        f"difference over all rounds, {result['patients']:.0f} patients of "
        f"{table['seed'].nunique()} seeds: {result['difference']:+.3f} "
        f"({result['low']:+.3f} to {result['high']:+.3f}), p = {result['p']:.3g}"
    )
    saved = []
    for _, rows in table.groupby("seed"):
        curves = rows.groupby(["arm", "labels"])["dice"].mean()
        goal = curves["random"].iloc[-1]
        reached = curves["least certain"][curves["least certain"] >= goal]
        most = curves["random"].index[-1]
        saved.append(float(most - reached.index[0]) if len(reached) else 0.0)
    low, high = interval(saved)
    print(f"labels saved, by seed: {saved}; mean {np.mean(saved):.1f} ({low:.1f} to {high:.1f})")


def main(config: Config) -> None:
    keep_settings(config, free=["seeds"])
    path = config.out / "table.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for seed in config.seeds:
        for arm in ARMS:
            if not any(row["seed"] == seed and row["arm"] == arm for row in rows):
                rows += run(arm, seed, config)
                write_atomically(path, pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(rows)
    report(table[table["seed"].isin(config.seeds)], config)


if __name__ == "__main__":
    main(tyro.cli(Config))
