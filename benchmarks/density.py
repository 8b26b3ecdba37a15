"""How well do the SVAE and other hierarchical VAEs model CT slices, without labels?

    stitchnet prepare DATA/unlabelled DATA/more --out runs/pool64.data --size 64 --lungs none
    python benchmarks/density.py runs/pool64.data --out runs/density

The arms have the same slices, steps, batches, augmentation and optimiser:

* ``svae``: the preset, with the article's one mapping d -> z for encoder and decoder.
* ``svae, article's start``: with the start of the preset ``article``.
* ``lvae``: the preset, with a mapping for each direction (Sonderby et al. 2016).
* ``vdvae``: a small very deep VAE (Child 2021).

They are compared by bits per dimension on unseen patients (evidence lower bound, one draw of z),
with batch-norm statistics of training slices without augmentation. The first three have the KL
warm-up of their presets. Finished arms are kept; after an interruption the same command continues.
Writes ``table.csv``, ``report.md``, and a picture of draws from the prior for each arm.
"""

import hashlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import torch
import tyro
from torch import Tensor
from vdvae import VDVAE

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.partition import partition
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.benchmark.consistency import slices_digest
from pyro_stitchnet.figures import image_columns, save_figure
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.posterior import active_units, seeded
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.precision import Precision, resolved
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.runtime.text_table import TextTable, decimal
from pyro_stitchnet.training.batch_norm import recompute_statistics
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.fit import fit
from pyro_stitchnet.training.learner import Learner
from pyro_stitchnet.training.svae_learner import SliceVAELearner
from pyro_stitchnet.training.validation import bits_per_dimension

Arm = Literal["svae", "svae, article's start", "lvae", "vdvae"]
BATCHES = 50  # of training slices, for batch norm's statistics
AT_ONCE = 50  # slices in a test batch
DRAWN = 8  # pictures from the prior


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    out: Path = Path("runs/density")
    arms: tuple[Arm, ...] = get_args(Arm)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 2000
    per_batch: int = 16
    folds: int = 6
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Channels of d1..d5 in SVAE and ladder VAE; the article's by default."""
    width: int = 128
    """Channels of the VDVAE."""
    device: str = "auto"
    precision: Precision = "auto"

    def settings(self, arm: Arm, seed: int) -> dict[str, Any]:
        """What decides the result of an arm."""
        precision = resolved(self.precision, choose_device(self.device))
        return {
            "arm": arm,
            "seed": seed,
            "data": str(self.data),
            "data_digest": slices_digest(Dataset(self.data)),
            "steps": self.steps,
            "per_batch": self.per_batch,
            "folds": self.folds,
            "channels": self.width if arm == "vdvae" else str(self.channels),
            "precision": precision,
        }


def built(config: Config, arm: Arm, size: int) -> SliceVAELearner | VDVAE:
    """A new model in training."""
    if arm == "vdvae":
        return VDVAE(config.width, size)
    chosen = preset("lvae" if arm == "lvae" else "svae")
    model = replace(chosen.model, channels=config.channels)
    if arm == "svae, article's start":
        article = preset("article").model
        model = replace(
            model,
            identity_start=article.identity_start,
            start_deviation=article.start_deviation,
        )
    return SliceVAELearner(SliceVAE(model), chosen.objective)


@torch.no_grad()
def bits_of(learner: Learner, x: Tensor) -> Tensor:
    """Bits per dimension of slices (N, H, W)."""
    if isinstance(learner, SliceVAELearner):
        return bits_per_dimension(learner.net, x)
    return learner.nats(x)[0] / x[0].numel() / torch.log(torch.tensor(2.0))


@torch.no_grad()
def used_levels(learner: Learner, x: Tensor) -> str:
    """The share of active units of z1 to z5, or the KL of the VDVAE by stride."""
    if isinstance(learner, SliceVAELearner):
        values = active_units(learner.net, x)
        return ", ".join(f"z{level} {decimal(share)}" for level, share in values.items())
    return ", ".join(f"/{stride} {decimal(kl)}" for stride, kl in learner.kl_by_stride(x).items())


@torch.no_grad()
def drawn(learner: Learner, size: int) -> Tensor:
    """Pictures of draws from the prior, (N, H, W)."""
    if isinstance(learner, SliceVAELearner):
        return learner.net.model(None, shape=(DRAWN, size, size)).mean
    return learner.draw(DRAWN)


def train(config: Config, arm: Arm, seed: int, slices: dict[str, Slices]) -> Learner:
    """Train an arm and give it batch-norm statistics of training slices as they are."""
    torch.manual_seed(seed)
    learner = built(config, arm, slices["test"].images.shape[-1])
    fit(
        learner,
        slices,
        TrainConfig(
            data=config.data,
            out=Path(),
            optimiser=preset("svae").optimiser,
            steps=config.steps,
            labelled_per_batch=0,
            unlabelled_per_batch=config.per_batch,
            validate_every=config.steps,
            log_every=config.steps,
            seed=seed,
            device=config.device,
            precision=config.precision,
        ),
    )
    streams = TwoStreams(
        slices["labelled"], slices["unlabelled"], (0, config.per_batch), seed=seed, augment=False
    )
    device = next(learner.parameters()).device
    recompute_statistics(learner, [streams[i].to(device) for i in range(BATCHES)], config.steps)
    return learner.eval()


def run_arm(config: Config, arm: Arm, seed: int, folder: Path) -> None:
    """Train one arm, and write its bits by slice, its levels and its pictures."""
    _, parts = partition(
        Dataset(config.data), fold=0, folds=config.folds, seed=seed, validation=False, labels=False
    )
    slices = {part: chosen.load() for part, chosen in parts.items()}
    begun = time.monotonic()
    learner = train(config, arm, seed, slices)
    seconds, test = time.monotonic() - begun, slices["test"]
    device = next(learner.parameters()).device
    some = test.images[:: max(1, len(test) // AT_ONCE)][:AT_ONCE]
    with seeded(0, device):
        bits = [bits_of(learner, x.to(device)).cpu() for x in test.images.split(AT_ONCE)]
        levels = used_levels(learner, some.to(device))
        pictures = drawn(learner, test.images.shape[-1]).cpu()
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(image_columns({"": pictures.numpy()}), folder / "draws.png")
    own = pd.Series(torch.cat(bits).numpy()).groupby(test.patients).mean()
    row = {
        **config.settings(arm, seed),
        "weights": sum(p.numel() for p in learner.parameters()),
        "seconds": seconds,
        "patients": len(own),
        "mean": float(own.mean()),
        "median": float(own.median()),
        "levels": levels,
        **provenance(),
    }
    write_atomically(folder / "row.json", json.dumps(row, indent=1))


def main(config: Config) -> None:
    rows = []
    for seed in config.seeds:
        for arm in config.arms:
            settings = json.dumps(config.settings(arm, seed), sort_keys=True)
            folder = config.out / hashlib.sha256(settings.encode()).hexdigest()[:12]
            if not (folder / "row.json").exists():
                run_arm(config, arm, seed, folder)
            row = json.loads((folder / "row.json").read_text(encoding="utf-8"))
            rows.append({**row, "folder": folder.name})
            print(f"{arm}, seed {seed}: {row['median']:.3f} bits; {row['levels']}", flush=True)
    table = pd.DataFrame(rows)
    write_atomically(config.out / "table.csv", table.to_csv(index=False))
    lines = []
    for arm in config.arms:
        own = table[table["arm"] == arm]
        medians, means = (" ".join(f"{v:.2f}" for v in own[c]) for c in ("median", "mean"))
        millions, seconds = own["weights"].iloc[0] / 1e6, own["seconds"].mean()
        lines.append(
            [arm, f"{millions:.1f}", f"{seconds:.0f}", medians, means, own["levels"].iloc[0]]
        )
    head = ["model", "million weights", "training (s)", "bits: median", "mean", "levels"]
    report = (
        f"{TextTable(head, lines).markdown()}\n"
        f"Bits per dimension over {table['patients'].iloc[0]} unseen patients, one value per seed. "
        f"{config.steps} steps of {config.per_batch} slices. Levels, of the first seed: share of "
        "active units of z1 to z5; KL of the VDVAE in nats per pixel, by the pixels of the slice "
        "per entry of z.\n"
    )
    write_atomically(config.out / "report.md", report)
    print(report)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
