"""Do the styles collapse under the authors' objective and under eq. 9? On phantoms.

    python benchmarks/style_collapse.py --out runs/style_collapse

Trains three arms on the same labelled and unlabelled phantom slices: ``reference`` (the authors'
networks and objective), ``reference networks, eq. 9`` (another objective for the same networks and
optimiser) and ``article networks, eq. 9``. Prints and saves, on slices of unseen patients and
inside the lung: the style gap (mean absolute difference of two styles in grey units; mean and
minimum of the six pairs), the fall of log p(x | y, z) under a wrong label, and the distance of a
slice's segmentation from the mean segmentation of all slices. One row per arm and seed; a row that
exists with the same settings is not repeated.
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
from pyro_stitchnet.evaluation.style_metrics import style_metrics
from pyro_stitchnet.metrics.scores import slice_scores
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions, segment
from pyro_stitchnet.presets import Preset, preset
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State

Arm = Literal["reference", "reference networks, eq. 9", "article networks, eq. 9"]
ARMS: dict[str, Preset] = {
    "reference": preset("reference"),
    "reference networks, eq. 9": replace(preset("reference"), objective=Objective()),
    "article networks, eq. 9": Preset(),
}


@dataclass
class Config:
    out: Path = Path("runs/style_collapse")
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[Arm, ...] = get_args(Arm)
    steps: int = 300
    size: int = 64
    labelled: int = 20  # slices, two per patient
    unlabelled: int = 120  # slices, three per patient
    learning_rate: float = 1e-3


def metrics(net: StitchNet, slices: Slices) -> dict[str, float]:
    """The metrics of an arm on slices of unseen patients."""
    torch.manual_seed(0)
    answer = segment(net, slices.images, ReadOutOptions(samples=4))
    f1 = slice_scores(slices.labels(), answer.labels).groupby("lesion")["f1"].mean()
    return {
        **style_metrics(net, slices),
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
    return {**metrics(net, unseen), "skipped_steps": state.skipped}


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
    same = [row for row in rows if settings.items() <= row.items()]
    numbers = pd.DataFrame(same).groupby("arm", sort=False)
    columns = [
        "style_gap_mean", "style_gap_least", "label_drop", "segmentation_spread",
        "dice_ggo", "dice_consolidation",
    ]  # fmt: skip
    print(numbers[columns].mean().round(4).to_string())
    print("standard deviation over seeds")
    print(numbers[columns].std().round(4).to_string())


if __name__ == "__main__":
    main(tyro.cli(Config))
