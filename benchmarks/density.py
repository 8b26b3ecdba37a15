"""How well do the SVAE and other hierarchical VAEs model CT slices, without labels?

    stitchnet prepare DATA/unlabelled DATA/more --out runs/pool64.data --size 64 --lungs none
    python benchmarks/density.py runs/pool64.data --out runs/density

The arms train alike, on the same patients of a prepared dataset:

* ``svae``: the preset, with the article's one mapping d -> z for encoder and decoder.
* ``svae, article's start``: with the start of the preset ``article``.
* ``lvae``: the preset, with a mapping for each direction (Sonderby et al. 2016).
* ``vdvae``: a very deep VAE (Child 2021), with fewer weights than the others.

They are compared by bits per dimension on unseen patients (evidence lower bound, one draw of z).
Finished arms are kept; after an interruption the same command continues. Writes ``table.csv``,
``report.md``, and a picture of draws from the prior for each arm.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch import Tensor
from vdvae import VDVAE

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.partition import cut
from pyro_stitchnet.evaluation.text_table import TextTable, decimal
from pyro_stitchnet.figures import image_columns, save_figure
from pyro_stitchnet.metrics.statistics import paired
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.posterior import active_units, seeded
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.precision import Precision
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.fit import fit
from pyro_stitchnet.training.learner import Learner
from pyro_stitchnet.training.svae_learner import SliceVAELearner
from pyro_stitchnet.training.validation import bits_per_dimension

ARMS = ("svae", "svae, article's start", "lvae", "vdvae")
BATCH = 50  # slices in a test batch
DRAWN = 8  # pictures from the prior


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    out: Path = Path("runs/density")
    arms: tuple[str, ...] = ARMS
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


def built(config: Config, arm: str, size: int) -> Learner:
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


def train_and_test(config: Config, arm: str, seed: int, folder: Path) -> None:
    """Train one arm, and write its bits by slice, its levels and its pictures."""
    _, parts = cut(
        Dataset(config.data), fold=0, folds=config.folds, seed=seed, validation=False, labels=False
    )
    slices = {part: chosen.load() for part, chosen in parts.items()}
    test, size = slices["test"], slices["test"].images.shape[-1]
    torch.manual_seed(seed)
    learner = built(config, arm, size)
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
    device = next(learner.parameters()).device
    learner.eval()
    with seeded(0, device):
        bits = torch.cat([bits_of(learner, x.to(device)).cpu() for x in test.images.split(BATCH)])
        levels = used_levels(learner, test.images[:BATCH].to(device))
        pictures = drawn(learner, size).cpu()
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(image_columns({"": pictures.numpy()}), folder / "draws.png")
    table = pd.DataFrame({"patient": test.patients, "bits": bits})
    parameters = sum(p.numel() for p in learner.parameters())
    table = table.assign(levels=levels, parameters=parameters, **provenance())
    write_atomically(folder / "bits.csv", table.to_csv(index=False))


def main(config: Config) -> None:
    bits: dict[str, list[pd.Series]] = {arm: [] for arm in config.arms}
    records = []
    for seed in config.seeds:
        for arm in config.arms:
            folder = config.out / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
            if not (folder / "bits.csv").exists():
                train_and_test(config, arm, seed, folder)
            table = pd.read_csv(folder / "bits.csv")
            own = table.groupby("patient")["bits"].mean()
            bits[arm].append(own.rename(lambda patient, seed=seed: f"{seed}/{patient}"))
            first = table.iloc[0].drop(["patient", "bits"])
            row = {"arm": arm, "seed": seed, "mean": own.mean(), "median": own.median(), **first}
            records.append(row)
            print(f"{arm}, seed {seed}: {own.mean():.3f} bits; {first['levels']}", flush=True)
    write_atomically(config.out / "table.csv", pd.DataFrame(records).to_csv(index=False))
    report(config, pd.DataFrame(records), bits)


def report(config: Config, rows: pd.DataFrame, bits: dict[str, list[pd.Series]]) -> None:
    """Write and print the table of all arms."""
    lines = []
    for arm in config.arms:
        own, first = rows[rows["arm"] == arm], config.arms[0]
        difference = "–"
        if arm != first:
            d = paired(pd.concat(bits[arm]), pd.concat(bits[first]))
            difference = f"{d['difference']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})"
        means, medians = (" ".join(f"{v:.2f}" for v in own[c]) for c in ("mean", "median"))
        millions = f"{own['parameters'].iloc[0] / 1e6:.1f}"
        lines.append([arm, millions, means, medians, difference, own["levels"].iloc[0]])
    columns = ["model", "million weights", "bits: mean by seed", "median by seed"]
    table = TextTable([*columns, f"minus {config.arms[0]} (95 %)", "levels, first seed"], lines)
    settings = {k: v for k, v in asdict(config).items() if k in ("steps", "per_batch", "folds")}
    text = (
        f"{table.markdown()}\n\nBits per dimension on unseen patients: evidence lower bound, one "
        f"draw of z; means by patient. {settings}. Levels: share of active units of z1 to z5, or "
        "KL in nats per pixel by stride.\n"
    )
    write_atomically(config.out / "report.md", text)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
