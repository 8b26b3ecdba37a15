"""The SVAE against the ladder VAE: does sharing one mapping d -> z for both directions help?

The article shares it and does not test it. Both arms train alike, without labels, on the same
patients of a prepared dataset, and are compared by bits per dimension on unseen patients.

    stitchnet prepare ct/unlabelled ct/more --out pool64.data --size 64 --lungs none
    python benchmarks/svae_lvae.py pool64.data --out runs/svae_lvae

Finished runs are kept: run again, it goes on. Prints a Markdown table, and writes it with the rows
of every run to ``table.csv`` and ``report.md``.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import tyro

from pyro_stitchnet.evaluation.experiment import BITS, experiment
from pyro_stitchnet.evaluation.metrics.statistics import paired
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.training.config import TrainConfig

ARMS = ("svae", "lvae")


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    out: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 500
    per_batch: int = 8
    validate_every: int = 100
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Channels of d1..d5; the article's by default."""
    device: str = "auto"
    progress: bool = False


def train(config: Config, arm: str, seed: int) -> Path:
    """Train one arm unless it is finished; return its folder."""
    chosen = preset(arm)
    out = config.out / f"{arm}-{seed}"
    if not (out / "model.pt").exists():
        experiment(
            TrainConfig(
                data=config.data,
                out=out,
                model=replace(chosen.model, channels=config.channels),
                objective=chosen.objective,
                optimiser=chosen.optimiser,
                steps=config.steps,
                labelled_per_batch=config.per_batch,
                unlabelled_per_batch=0,
                validate_every=config.validate_every,
                seed=seed,
                device=config.device,
                resume=any((out / "states").glob("*.pt")),
                tensorboard=False,
                progress=config.progress,
            )
        )
    return out


def bits_by_patient(folder: Path) -> pd.Series:
    return pd.read_csv(folder / "test" / BITS).groupby("patient")["bits"].mean()


def main(config: Config) -> None:
    rows, bits = [], {arm: [] for arm in ARMS}
    for seed in config.seeds:
        for arm in ARMS:
            folder = train(config, arm, seed)
            by_patient = bits_by_patient(folder)
            record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            bits[arm].append(by_patient.rename(lambda patient, seed=seed: f"{seed}/{patient}"))
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "steps": record["last_step"],
                    "bits_per_dimension": by_patient.mean(),
                    "patients": len(by_patient),
                    **{key: record[key] for key in ("commit", "machine", "date")},
                }
            )
            print(f"{arm}, seed {seed}: {by_patient.mean():.3f} bits per dimension", flush=True)
    table = pd.DataFrame(rows)
    difference = paired(*(pd.concat(bits[arm]) for arm in ARMS))
    lines = ["| model | bits per dimension, mean over seeds | each seed |", "|---|---:|---|"]
    for arm in ARMS:
        values = table.loc[table["arm"] == arm, "bits_per_dimension"]
        each = ", ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {arm} | {values.mean():.3f} | {each} |")
    report = "\n".join(lines) + (
        f"\n\nSVAE - LVAE: {difference['difference']:+.4f} bits per dimension "
        f"(95 % interval {difference['low']:+.4f} to {difference['high']:+.4f}, "
        f"{difference['patients']} test patients and seeds; below 0 favours the SVAE).\n"
    )
    write_atomically(config.out / "table.csv", table.to_csv(index=False))
    write_atomically(config.out / "report.md", report)
    print(report)


if __name__ == "__main__":
    main(tyro.cli(Config))
