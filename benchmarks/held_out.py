"""The best model's own commands on patients held out, beside those of a U-Net trained alike.

    python benchmarks/held_out.py DATA --weights IMAGENET.pt --out runs/held_out

DATA holds the folders labelled, unlabelled and partial (docs/benchmark.md). Of three folds, one of
the labelled patients and one of partial's three patients are held out; `prepare`, `train` with
examples/covid.yaml and `--folds 0`, and `evaluate` are run on the rest as a user would run them.
The U-Net is the model's own q(y | x), trained without unlabelled slices and read alone. Prints the
Dice of the lesions (mean over the slices that have one) and of infection. Run again after it was
killed, it goes on.
"""

import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tyro

from pyro_stitchnet.benchmark.report import lesion_dice
from pyro_stitchnet.evaluation.statistics import paired

ROOT = Path(__file__).parent.parent
FOLDS = 3
RUNS = {
    "labels": ["--unlabelled-per-batch", "0", "--posterior-weight", "0"],
    "guided": [],
}
LINES = {
    "unet": ("labels", "guide"),
    "guided, labels only": ("labels", "posterior"),
    "guided": ("guided", "posterior"),
}  # a run and its read-out
TESTS = ("labelled", "partial")


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    out: Path = Path("runs/held_out")
    weights: str = "imagenet"
    fold: int = 0  # of 3
    runs: tuple[Literal["labels", "guided"], ...] = ("labels", "guided")
    size: int = 192
    steps: int = 4000
    seed: int = 0


def stitchnet(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "pyro_stitchnet", *map(str, arguments)], check=True)


def deal(source: Path, out: Path, held: np.ndarray, index: pd.DataFrame) -> None:
    """Write ``out``/train and ``out``/test: folders that share the pictures of ``source``."""
    for name, rows in (("train", ~held), ("test", held)):
        folder = out / name
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for file in index.loc[rows, "file"]:
                link = folder / kind / file
                if not link.exists():
                    link.symlink_to((source / kind / file).resolve())
        index[rows].to_csv(folder / "index.csv", index=False)


def prepare(config: Config) -> None:
    for name in TESTS:
        index = pd.read_csv(config.data / name / "index.csv", dtype={"patient": str})
        patients = np.sort(index["patient"].unique())
        shuffled = np.random.default_rng(config.seed).permutation(patients)
        held = index["patient"].isin(shuffled[config.fold :: FOLDS]).to_numpy()
        deal(config.data / name, config.out / name, held, index)
    options = ["--size", config.size, "--lungs", "none", "--no-progress"]
    labelled, partial = (config.out / name for name in TESTS)
    train = [labelled / "train", config.data / "unlabelled", f"{partial / 'train'}@infection"]
    stitchnet("prepare", *train, "--out", config.out / "train.data", *options)
    stitchnet("prepare", labelled / "test", "--out", config.out / "labelled.data", *options)
    infection = f"{partial / 'test'}@infection"
    stitchnet("prepare", infection, "--out", config.out / "partial.data", *options)


def main(config: Config) -> None:
    """Train the runs and print what they score."""
    config.out = config.out / f"fold{config.fold}-{config.size}"
    if not (config.out / "partial.data" / "manifest.csv").exists():
        prepare(config)
    rows, lesions = [], {}
    for name in config.runs:
        run = config.out / f"{name}-{config.steps}"
        if not (run / "model.pt").exists():
            options = ["--config", ROOT / "examples/covid.yaml", "--folds", 0]
            options += ["--steps", config.steps, "--seed", config.seed, "--no-progress"]
            options += ["--weights", config.weights]
            options += ["--resume"] if run.exists() else []
            stitchnet("train", config.out / "train.data", *options, "--out", run, *RUNS[name])
        read_outs = {line: read_out for line, (of, read_out) in LINES.items() if of == name}
        for (line, read_out), decision in product(read_outs.items(), ("likeliest", "dice")):
            row: dict[str, object] = {"line": line, "decision": decision}
            for test in TESTS:
                tables = run / f"{test}-{read_out}-{decision}"
                if not (tables / "table.csv").exists():
                    how = ["--read-out", read_out, "--decision", decision, "--views", 8]
                    data = config.out / f"{test}.data"
                    stitchnet("evaluate", run / "model.pt", data, "--out", tables, *how)
                table = pd.read_csv(tables / "table.csv").query("averaged_over == 'images'")
                dice = table.set_index("lesion")["f1_lesion_present_mean"].dropna()
                row |= {f"{lesion}, {test}": value for lesion, value in dice.items()}
                if test == "labelled":
                    scores = pd.read_csv(tables / "scores.csv", dtype={"patient": str})
                    lesions[f"{line}, {decision}"] = lesion_dice(scores)
            rows.append(row)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    first, *others = lesions
    for line in others:
        c = paired(lesions[line], lesions[first])
        print(
            f"{line} minus {first}, both lesions by patient: {c['difference']:+.3f} "
            f"({c['low']:+.3f} to {c['high']:+.3f}), {c['patients']} patients"
        )
    print(f"fold {config.fold} of {FOLDS}, {config.steps} steps, seed {config.seed}")


if __name__ == "__main__":
    main(tyro.cli(Config))
