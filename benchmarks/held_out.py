"""Train with all labels but those of held-out patients, and test on these, beside a U-Net.

    python benchmarks/held_out.py DATA --weights IMAGENET.pt --out runs/held_out

DATA holds the folders labelled, unlabelled and partial (see covid.yaml). A third of the labelled
patients and one of partial's three patients are held out in turn. `prepare`, `train` with
examples/covid.yaml and `--folds 0`, and `evaluate` run on the rest. The U-Net is the model's own
classifier q(y | x), trained without unlabelled slices, as it is and with its lesions split by
brightness. Prints for each fold and for all: Dice of the lesions (mean over the slices that have
one) and of infection, F1 of eq. 1 over all slices, false alarms, and the differences between lines.
"patches" are likeliest labels without patches of consolidation below 1/2000 of the pixels. After an
interruption the same command continues; other files or settings need another --out.
"""

import hashlib
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tyro
from settings import keep_settings

from pyro_stitchnet import cli
from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.evaluation.baselines.base import Supervised
from pyro_stitchnet.evaluation.baselines.brightness import splits
from pyro_stitchnet.evaluation.benchmark.columns import dice_by_patient
from pyro_stitchnet.evaluation.tables import table_one
from pyro_stitchnet.metrics.scores import slice_scores
from pyro_stitchnet.metrics.statistics import paired
from pyro_stitchnet.posterior.decision import decide, without_specks
from pyro_stitchnet.posterior.options import VIEWS, Decision
from pyro_stitchnet.posterior.views import average_views
from pyro_stitchnet.runtime.checksums import sha256
from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.training import checkpoint

ROOT = Path(__file__).parent.parent
OPTIONS = ROOT / "examples" / "covid.yaml"
FOLDS = 3
RUNS = {
    "labels": ["--unlabelled-per-batch", "0"],
    "guided": [],
}
READ_OUTS = {"unet": "guide", "guided, labels only": "posterior", "guided": "posterior"}
LINES = {"labels": ["unet", "guided, labels only"], "guided": ["guided"]}  # of each run
DECISIONS: dict[str, tuple[Decision, bool]] = {  # and whether small patches are removed
    "likeliest": ("likeliest", False),
    "dice": ("dice", False),
    "patches": ("likeliest", True),
}
PATCH = 1 / 2000  # of the slice
LABELS = ["GGO", "CON", "Infection"]
TESTS = ("labelled", "partial")


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    out: Path = Path("runs/held_out")
    weights: str = "imagenet"
    folds: tuple[Literal[0, 1, 2], ...] = (0, 1, 2)
    runs: tuple[Literal["labels", "guided"], ...] = ("labels", "guided")
    size: int = 192
    steps: int = 4000
    samples: int = 8
    views: int = VIEWS
    seed: int = 0


def stitchnet(*arguments: object) -> None:
    sys.argv = ["stitchnet", *map(str, arguments)]
    cli.main()


def digest(config: Config) -> str:
    """Return the SHA-256 of all files that decide the results."""
    folders = (config.data / name for name in (*TESTS, "unlabelled"))
    paths = sorted(path for folder in folders for path in folder.rglob("*"))
    paths += [OPTIONS, Path(config.weights)]
    text = "".join(f"{path} {sha256(path)}\n" for path in paths if path.is_file())
    return hashlib.sha256(text.encode()).hexdigest()


def deal(source: Path, out: Path, held: np.ndarray, index: pd.DataFrame) -> None:
    """Write ``out``/train and ``out``/test: folders with links to the files of ``source``."""
    for name, rows in (("train", ~held), ("test", held)):
        folder = out / name
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for file in index.loc[rows, "file"]:
                link = folder / kind / file
                if not link.exists():
                    link.symlink_to((source / kind / file).resolve())
        index[rows].to_csv(folder / "index.csv", index=False)


def prepare(config: Config, fold: int, out: Path) -> None:
    for name in TESTS:
        index = pd.read_csv(config.data / name / "index.csv", dtype={"patient": str})
        patients = np.sort(index["patient"].unique())
        shuffled = np.random.default_rng(config.seed).permutation(patients)
        held = index["patient"].isin(shuffled[fold::FOLDS]).to_numpy()
        deal(config.data / name, out / name, held, index)
    options = ["--size", config.size, "--lungs", "none", "--no-progress"]
    labelled, partial = (out / name for name in TESTS)
    train = [labelled / "train", config.data / "unlabelled", f"{partial / 'train'}@infection"]
    infection = f"{partial / 'test'}@infection"
    for part, sources in {
        "train": train, "labelled": [labelled / "test"], "partial": [infection]
    }.items():  # fmt: skip
        if not (out / f"{part}.data" / "dataset.json").exists():
            stitchnet("prepare", *sources, "--out", out / f"{part}.data", *options)


def train(config: Config, name: str, folder: Path) -> Path:
    """The folder of a run, trained if it is not finished."""
    run = folder / f"{name}-{config.steps}"
    if not (run / "model.pt").exists():
        options = ["--config", OPTIONS, "--folds", 0]
        options += ["--steps", config.steps, "--seed", config.seed, "--no-progress"]
        options += ["--weights", config.weights]
        options += ["--resume"] if any(run.glob("states/*.pt")) else []
        stitchnet("train", folder / "train.data", *options, "--out", run, *RUNS[name])
    return run


def scored(config: Config, fold: int) -> pd.DataFrame:
    """Train on two thirds of the patients and score the others: a row per slice and label."""
    folder = config.out / f"fold{fold}-{config.size}-{config.seed}"
    if not (folder / "partial.data" / "dataset.json").exists():
        prepare(config, fold, folder)
    scores = []
    for name in config.runs:
        run = train(config, name, folder)
        for line, decision, test in product(LINES[name], DECISIONS, TESTS):
            rule, patches = DECISIONS[decision]
            if patches and test == "partial":
                continue  # its infection stays the same
            read_out = READ_OUTS[line]
            tables = run / f"{test}-{read_out}-{decision}"
            if not (tables / "table.csv").exists():
                options = ["--read-out", read_out, "--decision", rule, "--views", config.views]
                options += ["--samples", config.samples]
                options += ["--least-patch", patches * least_patch(config)]
                data = folder / f"{test}.data"
                stitchnet("evaluate", run / "model.pt", data, "--out", tables, *options)
            rows = pd.read_csv(tables / "scores.csv", dtype={"patient": str})
            scores.append(rows.assign(line=line, decision=decision, test=test))
        if name == "labels":
            scores += split_by_brightness(config, folder, run)
    return pd.concat(scores)


def least_patch(config: Config) -> int:
    """In pixels."""
    return round(PATCH * config.size**2)


def split_by_brightness(config: Config, folder: Path, run: Path) -> list[pd.DataFrame]:
    """The U-Net's lesions split by grey values, view by view, on the labelled slices."""
    net, _ = checkpoint.load(run / "model.pt", choose_device("auto"))
    assert net.classifier is not None
    training, test = Dataset(folder / "train.data"), Dataset(folder / "labelled.data").load()
    labelled = training.take(np.flatnonzero(training.manifest["complete"])).load()
    images = test.images.to(next(net.parameters()).device)
    scores = []
    for name, predictor in splits(Supervised(net.classifier).probabilities, labelled).items():
        p = average_views(predictor, images, config.views).cpu()
        for decision, (rule, patches) in DECISIONS.items():
            labels = decide(without_specks(p, rule, patches * least_patch(config)), rule)
            rows = slice_scores(test.labels(), labels, test.names, test.patients)
            line = f"unet ({name})"
            scores.append(rows.assign(line=line, decision=decision, test="labelled"))
    return scores


def summarise(scores: pd.DataFrame, title: str) -> None:
    """Print the scores of every line, and their differences over patients."""
    rows = []
    for (line, decision), part in scores.groupby(["line", "decision"], sort=False):
        row: dict[str, object] = {"line": line, "decision": decision}
        for test, here in part.groupby("test", sort=False):
            lesions = table_one(here).reindex(LABELS).dropna(how="all")
            dice = lesions["f1_lesion_present_mean"]
            row |= {f"{lesion}, {test}": value for lesion, value in dice.items()}
            if test == "labelled":
                row |= {f"F1 {lesion}": lesions.loc[lesion, "f1_mean"] for lesion in LABELS[:2]}
                con = lesions.loc["CON"]
                without = con["images"] - con["lesion_images"]
                row["CON false alarms"] = f"{con['false_alarm_images']} of {without}"
        rows.append(row)
    print(f"{title}\n{pd.DataFrame(rows).to_string(index=False, float_format='{:.3f}'.format)}")
    for decision, part in scores[scores["test"] == "labelled"].groupby("decision", sort=False):
        dice = {line: dice_by_patient(here) for line, here in part.groupby("line", sort=False)}
        table = {
            f"minus {b}": {a: "" if a == b else difference(dice[a], dice[b]) for a in dice}
            for b in dice
        }
        print(f"Dice of both lesions by patient, {decision}\n{pd.DataFrame(table).to_string()}")


def difference(one: pd.Series, other: pd.Series) -> str:
    c = paired(one, other)
    return f"{c['difference']:+.3f} ({c['low']:+.3f} to {c['high']:+.3f})"


def main(config: Config) -> None:
    """Train the runs and print what they score."""
    keep_settings(config, free=["folds", "runs"], files=digest(config))
    done, settings = [], f"{config.steps} steps, seed {config.seed}"
    for fold in config.folds:
        done.append(scored(config, fold))
        summarise(done[-1], f"fold {fold} of {FOLDS}, {settings}")
    if len(done) > 1:
        summarise(
            pd.concat(done), f"folds {', '.join(map(str, config.folds))} together, {settings}"
        )


if __name__ == "__main__":
    main(tyro.cli(Config))
