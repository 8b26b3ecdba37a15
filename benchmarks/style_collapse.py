"""Does the authors' objective collapse the styles, and does eq. 9 not? On phantoms.

    python benchmarks/style_collapse.py --out runs/style_collapse

Trains three arms on the same labelled and unlabelled phantom slices: ``reference`` (the authors'
networks and objective), ``reference networks, eq. 9`` (the same networks and optimiser; only what
is maximised differs) and ``article``. Prints and saves, on unlabelled slices of unseen patients
and inside the lung: the style gap (mean absolute difference between two styles, in grey units, the
mean of the six pairs and the smallest of them), how much log p(x | y, z) drops when y is replaced
with a wrong label, and how far a slice's segmentation is from the mean segmentation of all slices
(0: every segmentation is the same). One row an arm and seed, appended as it finishes; a run that
the table has already, with the same settings, is not repeated.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import pandas as pd
import torch
import tyro

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.evaluation.metrics.scores import slice_scores
from pyro_stitchnet.evaluation.style_figures import style_figures
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import segment
from pyro_stitchnet.presets import Preset, preset
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State

Arm = Literal["reference", "reference networks, eq. 9", "article"]
ARMS: dict[str, Preset] = {
    "reference": preset("reference"),
    "reference networks, eq. 9": replace(
        preset("reference"), objective=preset("article").objective
    ),
    "article": preset("article"),
}


@dataclass
class Config:
    out: Path = Path("runs/style_collapse")
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[Arm, ...] = get_args(Arm)
    steps: int = 300
    size: int = 64
    labelled: int = 20  # slices, two a patient
    unlabelled: int = 120  # slices, three a patient
    learning_rate: float = 1e-3


def figures(net: StitchNet, slices: Slices) -> dict[str, float]:
    """What the arms are compared by, on slices whose labels were never shown."""
    torch.manual_seed(0)
    answer = segment(net, slices.images, samples=4)
    f1 = slice_scores(slices.labels(), answer.labels).groupby("lesion")["f1"].mean()
    return {
        **style_figures(net, slices),
        "dice_ggo": float(f1["GGO"]),
        "dice_consolidation": float(f1["CON"]),
    }


def run(arm: Preset, seed: int, config: Config) -> dict[str, float]:
    first = 1000 * seed
    patients = config.labelled // 2, config.unlabelled // 3
    labelled = phantom_slices(range(first, first + patients[0]), 2, size=config.size)
    start = first + patients[0]
    unlabelled = phantom_slices(range(start, start + patients[1]), 3, size=config.size)
    start += patients[1]
    unseen = phantom_slices(range(start, start + 20), 2, size=config.size)
    torch.manual_seed(seed)
    net = StitchNet(arm.model)
    learner = ElboLearner(net, arm.objective)
    state = State(learner, replace(arm.optimiser, learning_rate=config.learning_rate))
    train(
        state,
        TwoStreams(labelled, unlabelled, (4, 4), seed=seed).batches(),
        config.steps,
        log_every=config.steps,
    )
    return {**figures(net, unseen), "skipped_steps": state.skipped}


def main(config: Config) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    table = config.out / "table.csv"
    text = {"commit": str, "python": str}  # a commit may look like a number
    rows = pd.read_csv(table, dtype=text).to_dict("records") if table.exists() else []
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "seeds", "arms")}
    for seed in config.seeds:
        for name in config.arms:
            key = {"arm": name, "seed": seed, **settings}
            if any(key.items() <= row.items() for row in rows):
                continue
            result = run(ARMS[name], seed, config)
            rows.append({**key, **result, **provenance()})
            write_atomically(table, pd.DataFrame(rows).to_csv(index=False))
            print(name, seed, {k: round(v, 4) for k, v in result.items()}, flush=True)
    wanted = [row for row in rows if settings.items() <= row.items()]
    numbers = pd.DataFrame(wanted).groupby("arm", sort=False)
    columns = [
        "style_gap_mean", "style_gap_least", "label_drop", "segmentation_spread",
        "dice_ggo", "dice_consolidation",
    ]  # fmt: skip
    print(numbers[columns].mean().round(4).to_string())
    print("standard deviation over seeds")
    print(numbers[columns].std().round(4).to_string())


if __name__ == "__main__":
    main(tyro.cli(Config))
