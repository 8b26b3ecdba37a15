"""The SVAE against the ladder VAE: does sharing one mapping d -> z for both directions help?

The article shares it and does not test it. Both arms train alike, without labels, on the same
patients of a prepared dataset, and are compared by bits per dimension on unseen patients: as the
run evaluates them, with batch-norm statistics of eight augmented training batches, and with
statistics of more training slices, without augmentation.

    stitchnet prepare ct/unlabelled ct/more --out pool64.data --size 64 --lungs none
    python benchmarks/svae_lvae.py pool64.data --out runs/svae_lvae

Finished runs are kept; after an interruption the same command continues. Prints a Markdown table,
and writes it with the rows of every run to ``table.csv`` and ``report.md``.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.evaluation.experiment import BITS, experiment
from pyro_stitchnet.metrics.statistics import paired
from pyro_stitchnet.model.bound import bound
from pyro_stitchnet.posterior import seeded
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.validation import bits_per_dimension

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
    batches: int = 50
    """Training batches over which batch-norm statistics are recomputed."""
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
    """As the run evaluated its model."""
    return pd.read_csv(folder / "test" / BITS).groupby("patient")["bits"].mean()


@torch.no_grad()
def recomputed_bits_by_patient(config: Config, folder: Path) -> pd.Series:
    """With batch-norm statistics of training slices under the final weights."""
    file = folder / "recomputed_bits_per_dimension.csv"
    if not file.exists():
        net, _ = checkpoint.load_any(folder / "model.pt", choose_device(config.device))
        dataset, split = Dataset(config.data), pd.read_csv(folder / "split.csv")
        part = dict(zip(split["slice"], split["part"], strict=True))
        parts = np.array([part[name] for name in dataset.names])
        train, test = (dataset.take(np.flatnonzero(parts == p)) for p in ("train", "test"))
        device = next(net.parameters()).device
        with seeded(0, device):
            order = torch.randperm(len(train))[: config.batches * config.per_batch]
            recompute_batch_norm(net, train.take(order).load().images, config.per_batch)
            bits = bits_per_dimension(net, test.load().images.to(device)).cpu()
        table = pd.DataFrame({"patient": test.patients, "bits": bits})
        write_atomically(file, table.to_csv(index=False))
    return pd.read_csv(file).groupby("patient")["bits"].mean()


def recompute_batch_norm(net: nn.Module, images: Tensor, per_batch: int) -> None:
    """Set running statistics to their mean over batches of slices, under the present weights."""
    layers = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    device = next(net.parameters()).device
    net.train()
    for number, x in enumerate(images.split(per_batch), 1):
        for layer in layers:
            layer.momentum = 1 / number  # the running mean of all batches so far
        bound(net, x.to(device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    net.eval()


def main(config: Config) -> None:
    rows, bits = [], {arm: [] for arm in ARMS}
    for seed in config.seeds:
        for arm in ARMS:
            folder = train(config, arm, seed)
            plain, recomputed = (
                bits_by_patient(folder),
                recomputed_bits_by_patient(config, folder),
            )
            record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            bits[arm].append(recomputed.rename(lambda patient, seed=seed: f"{seed}/{patient}"))
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "steps": record["last_step"],
                    "as_trained": plain.mean(),
                    "as_trained_median": plain.median(),
                    "recomputed": recomputed.mean(),
                    "recomputed_median": recomputed.median(),
                    "patients": len(plain),
                    **{key: record[key] for key in ("commit", "machine", "date")},
                }
            )
            print(f"{arm}, seed {seed}: {recomputed.median():.3f} bits (median)", flush=True)
    table = pd.DataFrame(rows)
    difference = paired(*(pd.concat(bits[arm]) for arm in ARMS))
    per_seed = table.pivot(index="seed", columns="arm", values="recomputed_median")
    seeds = ", ".join(f"{d:+.3f}" for d in per_seed["svae"] - per_seed["lvae"])
    columns = ("recomputed_median", "recomputed", "as_trained_median", "as_trained")
    lines = ["| model | recomputed: median | mean | as trained: median | mean |"]
    lines += ["|---|---|---|---|---|"]
    for arm in ARMS:
        own = table[table["arm"] == arm]
        each = (", ".join(f"{value:.3f}" for value in own[column]) for column in columns)
        lines.append(f"| {arm} | {' | '.join(each)} |")
    report = "\n".join(lines) + (
        "\n\nBits per dimension over unseen patients, one value per seed; evidence lower bound "
        "with one draw of z.\n"
        f"SVAE - LVAE, recomputed: medians by seed {seeds}; mean over patients and seeds "
        f"{difference['difference']:+.3f} (95 % interval {difference['low']:+.3f} to "
        f"{difference['high']:+.3f}, n = {difference['patients']}). Below 0 favours the SVAE.\n"
    )
    write_atomically(config.out / "table.csv", table.to_csv(index=False))
    write_atomically(config.out / "report.md", report)
    print(report)


if __name__ == "__main__":
    main(tyro.cli(Config))
