"""Do slices without lesions in the training keep a model from seeing infection where there is none?

    python benchmarks/specificity.py runs/covid_controls.data --out runs/specificity

The dataset holds labelled slices, masks of infection and controls (header of covid.yaml). Three
training sets are compared: ten labelled slices; those and the masks of infection; those and
half of the controls. The other controls are the test. The protocol is that of covid.yaml.

The U-Net is trained, which is the classifier of ``guided`` to the bit; the lines "levels" are its
split by tissue levels. Finished runs are kept: after an interruption the same command continues.
Writes ``scores.csv``, with the infected pixels of every control, and prints a table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from settings import keep_settings

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.partition import partition
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.benchmark.cells import Cell
from pyro_stitchnet.evaluation.benchmark.columns import dice_by_patient
from pyro_stitchnet.evaluation.benchmark.consistency import slices_digest
from pyro_stitchnet.evaluation.benchmark.runner import train_candidate
from pyro_stitchnet.evaluation.benchmark.spec import Entry, Spec, read_spec
from pyro_stitchnet.evaluation.benchmark.testing import predict_and_score
from pyro_stitchnet.metrics.statistics import paired
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.runtime.text_table import TextTable, decimal

INFECTION, CONTROLS = "0 1 2+3", "0+1"  # rules of masks
ARMS = {
    "labels": (),
    "and infection masks": (INFECTION,),
    "and controls": (INFECTION, CONTROLS),
}
ALARM = 0.001  # of the slice's pixels


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    spec: Path = Path("benchmarks/covid.yaml")
    out: Path = Path("runs/specificity")
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int | None = None  # those of the specification by default


def split(config: Config, spec: Spec, arm: str, seed: int) -> dict[str, Slices]:
    """The slices of each part, and the controls that no arm trains on."""
    dataset = Dataset(config.data)
    rules, patients = dataset.manifest["rule_sets"], dataset.manifest["patient"]
    controls, budget = patients[rules == CONTROLS].unique(), spec.budgets[0]
    held_out = np.random.default_rng(seed).permutation(controls)[: len(controls) // 2]
    unseen = np.flatnonzero(patients.isin(held_out))
    keep = ~rules.isin({INFECTION, CONTROLS} - set(ARMS[arm])).to_numpy()
    keep[unseen] = False
    _, parts = partition(
        dataset.take(np.flatnonzero(keep)),
        fold=0,
        folds=budget.folds,
        seed=seed,
        label_budget=budget.labels,
        validation=budget.validation,
    )
    slices = {part: chosen.load() for part, chosen in parts.items()}
    return {**slices, "controls": dataset.take(unseen).load()}


def run(config: Config, spec: Spec, arm: str, seed: int) -> pd.DataFrame:
    """Train one arm; the scores of its test slices and of the unseen controls."""
    slices = split(config, spec, arm, seed)
    cell = Cell(arm, Entry("unet", steps=config.steps), spec.budgets[0], 0, seed)
    learner, _ = train_candidate(spec, cell, slices, {})
    tested = predict_and_score(learner, slices, slices["controls"], spec, cell.entry)
    scores = pd.concat([scores for _, scores in tested], ignore_index=True)
    scores["share"] = scores["predicted_pixels"] / slices["controls"].images[0].numel()
    trained = {part: len(slices[part]) for part in ("labelled", "unlabelled")}
    columns: Mapping[str, Any] = {"arm": arm, "seed": seed, **trained, **provenance()}
    return scores.assign(**columns)


def table(scores: pd.DataFrame) -> TextTable:
    """The line of every arm and read-out: means over runs, and the paired difference."""
    infected = {
        line: own.groupby("patient")["share"].mean()
        for line, own in scores[scores["set"] == "other_hospital"].groupby(["arm", "variant"])
    }
    lines = []
    for (arm, variant), own in scores.groupby(["arm", "variant"], sort=False):
        controls, test = (own[own["set"] == name] for name in ("other_hospital", "test"))
        dice = pd.DataFrame([dice_by_patient(run) for _, run in test.groupby("seed")]).mean()
        free = test[(test["lesion"] == "CON") & (test["truth_pixels"] == 0)]
        change = paired(infected[arm, variant], infected["labels", variant])
        between = f"{100 * change['low']:+.2f} to {100 * change['high']:+.2f}"
        lines.append(
            [
                f"{arm}: {variant or 'U-Net'}",
                f"{100 * controls['share'].mean():.2f}",
                "–" if arm == "labels" else f"{100 * change['difference']:+.2f} ({between})",
                f"{(controls['share'] > ALARM).sum()} of {len(controls)}",
                f"{(free['predicted_pixels'] > 0).sum()} of {len(free)}",
                decimal(dice.mean()),
            ]
        )
    head = ["training: read-out", "infected, %", "minus labels (95 %)", "controls with > .1 %"]
    return TextTable([*head, "false alarms of consolidation", "both lesions"], lines)


def main(config: Config) -> None:
    spec, path = read_spec(config.spec), config.out / "scores.csv"
    rules = set(Dataset(config.data).manifest["rule_sets"])
    if missing := sorted({INFECTION, CONTROLS} - rules):
        raise ValueError(
            f"{config.data}: no slices whose masks have the label sets {', '.join(missing)}; "
            "prepare it with masks of infection and controls, as in the header of covid.yaml"
        )
    digest = spec.digest(Entry("unet", steps=config.steps), spec.budgets[0])
    slices = slices_digest(Dataset(config.data))
    keep_settings(config, free=["seeds"], specification=digest, slices=slices)
    scores = None
    if path.exists():
        text = dict.fromkeys(("name", "patient", "commit"), str)
        scores = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    for seed in config.seeds:
        for arm in ARMS:
            done = scores is not None and ((scores["arm"] == arm) & (scores["seed"] == seed)).any()
            if not done:
                scores = pd.concat([scores, run(config, spec, arm, seed)], ignore_index=True)
                write_atomically(path, scores.to_csv(index=False))
            print(f"{arm}, seed {seed}", flush=True)
    assert scores is not None
    scores["variant"] = scores["variant"].fillna("")
    scores = scores[scores["seed"].isin(config.seeds)]
    report = table(scores[scores["variant"].isin(["", "levels", "levels, dice"])])
    write_atomically(config.out / "report.md", report.markdown())
    report.print()


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
