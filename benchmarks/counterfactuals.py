"""How well does a model heal a lung? On phantoms, whose lung without lesions is known.

    python benchmarks/counterfactuals.py --out runs/counterfactuals

Trains a preset on labelled and unlabelled phantoms (or uses ``--model``), heals the lesions of
unseen patients, and compares with the true slice without lesions, within the healed region and over
the whole slice: PSNR and SSIM, mean and standard deviation over slices. The healthy style heals
too, as it shows the slice as healthy lung. For comparison:
scikit-image's biharmonic inpainting, the mean grey value of healthy lung in the training slices and
in the same slice, and the slice as it is. The region is that of the true labels, then that of the
model's own segmentation.
"""

import textwrap
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from skimage.metrics import structural_similarity
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.phantoms.phantom import phantom_slices, phantoms
from pyro_stitchnet.figures import counterfactuals, save_figure
from pyro_stitchnet.labels import GGO, HEALTHY
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import HEALED, ReadOutOptions, counterfactual, edited, seeded, segment
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.fit import STATISTICS
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.run import learner_of
from pyro_stitchnet.training.state import State

UNSEEN = 10_000  # the first patient to test on


@dataclass
class Config:
    out: Path = Path("runs/counterfactuals")
    model: Path | None = None  # a checkpoint trained on phantoms; one is trained by default
    preset: str = "guided"
    steps: int = 400
    size: int = 128
    labelled: int = 40  # slices, two a patient
    unlabelled: int = 60  # slices, three a patient
    patients: int = 20  # to test on, two slices each; those with lesions count
    samples: int = 8
    inpaint: bool = True  # biharmonic inpainting takes most of the time
    seed: int = 0


def trained(config: Config) -> StitchNet:
    """A model trained on phantoms, kept for the next run."""
    parts = ("preset", "size", "steps", "labelled", "unlabelled", "seed")
    name = "-".join(str(getattr(config, part)) for part in parts)
    path = config.model or config.out / f"{name}.pt"
    if path.exists() or config.model:
        return checkpoint.load(path)[0]
    labelled = phantom_slices(range(config.labelled // 2), 2, size=config.size, seed=config.seed)
    start = config.labelled
    unlabelled = phantom_slices(
        range(start, start + config.unlabelled // 3), 3, size=config.size, seed=config.seed
    )
    torch.manual_seed(config.seed)
    chosen = preset(config.preset)
    net = StitchNet(chosen.model)
    learner = learner_of(net, chosen.objective)
    learner.begin(labelled, steps=config.steps)
    streams = TwoStreams(
        labelled, unlabelled, (4, 4), seed=config.seed, strong_views=learner.strong_views
    )
    train(
        State(learner, chosen.optimiser),
        streams.batches(),
        config.steps,
        log_every=50,
        statistics=[streams[i] for i in range(STATISTICS)],
    )
    checkpoint.save(net, path)
    return net.eval()


def psnr(made: np.ndarray, true: np.ndarray, where: np.ndarray) -> float:
    """Peak signal to noise over some pixels, in decibels."""
    return float(-10 * np.log10(np.mean((made[where] - true[where]) ** 2)))


def scores(made: np.ndarray, true: np.ndarray, where: np.ndarray) -> dict[str, float]:
    _, similar = structural_similarity(true, made, data_range=1, full=True)
    return {
        "psnr_region": psnr(made, true, where),
        "psnr_slice": psnr(made, true, np.ones_like(where)),
        "ssim_region": float(similar[where].mean()),
        "ssim_slice": float(similar.mean()),
    }


def biharmonic(image: np.ndarray, region: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about numerics
        return np.clip(inpaint_biharmonic(image, region, split_into_regions=True), 0, 1)


def healings(
    config: Config, net: StitchNet, x: Tensor, source: Tensor, grey: float, style: Tensor
) -> Mapping[str, Callable[[], np.ndarray]]:
    """Every way to heal, by name.

    ``source`` are labels (N, H, W) or probabilities (N, K, H, W); ``style`` is the healthy style of
    the slices, (N, H, W).
    """
    present = source if source.ndim == 3 else source.argmax(1)
    target, region = edited(present, HEALED), (present >= GGO).numpy()

    def stitched(**changes: object) -> Callable[[], np.ndarray]:
        def heal() -> np.ndarray:
            with seeded(0, torch.device("cpu")):
                options = {"present": source, "samples": config.samples, **changes}
                return counterfactual(net, x, target, **options).image.numpy()  # type: ignore[arg-type]

        return heal

    def filled(value: Tensor | float) -> np.ndarray:
        return torch.where(torch.from_numpy(region), value, x).numpy()

    def inpainted() -> np.ndarray:
        return np.stack([biharmonic(a, b) for a, b in zip(x.numpy(), region, strict=True)])

    healthy = present == HEALTHY
    own = (x * healthy).flatten(1).sum(1) / healthy.flatten(1).sum(1).clamp_min(1)
    return {
        "healthy style": lambda: filled(style),
        "stitched, deviations kept": stitched(),
        **({} if source.ndim == 3 else {"stitched, likeliest label": stitched(present=present)}),
        "stitched, deviations kept, one round": stitched(rounds=1),
        "stitched, means": stitched(pixels="mean"),
        "stitched, drawn": stitched(pixels="drawn"),
        **({"biharmonic": inpainted} if config.inpaint else {}),
        "mean of healthy lung": lambda: filled(grey),
        "mean of the slice's healthy lung": lambda: filled(own[:, None, None]),
        "slice as it is": x.numpy,
    }


def main(config: Config) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    net = trained(config)
    train_slices = phantom_slices(
        range(config.labelled // 2), 2, size=config.size, seed=config.seed
    )
    grey = float(train_slices.images[train_slices.labels() == HEALTHY].mean())
    numbers = range(UNSEEN, UNSEEN + config.patients)
    cut = [p for p in phantoms(numbers, 2, size=config.size) if (p.labels >= GGO).mean() > 0.005]
    x = torch.from_numpy(np.stack([p.image for p in cut]))
    healthy = np.stack([p.healthy for p in cut])
    truth = torch.from_numpy(np.stack([p.labels for p in cut])).long()
    with seeded(0, torch.device("cpu")):
        answer = segment(net, x, ReadOutOptions(samples=config.samples))
    style = answer.styles[:, HEALTHY]
    rows = []
    for region, source in {"true labels": truth, "own segmentation": answer.probabilities}.items():
        present = source if source.ndim == 3 else source.argmax(1)
        where = (present >= GGO).numpy()
        shown = {}
        for name, heal in healings(config, net, x, source, grey, style).items():
            made = shown[name] = heal()
            rows += [
                {
                    "region": region,
                    "method": name,
                    "slice": i,
                    **scores(made[i], healthy[i], where[i]),
                }
                for i in range(len(cut))
                if where[i].any()
            ]
        some = np.linspace(0, len(cut) - 1, 4).astype(int)
        figure = counterfactuals(
            x[some].numpy(), present[some].numpy(),
            {
                textwrap.fill(name, 16): made[some]
                for name, made in shown.items()
                if "one round" not in name
            },
            healthy[some],
        )  # fmt: skip
        save_figure(figure, config.out / f"{config.preset}, {region}.png")
    table = pd.DataFrame(rows)
    write_atomically(config.out / f"{config.preset}.csv", table.to_csv(index=False))
    columns = ["psnr_region", "psnr_slice", "ssim_region", "ssim_slice"]
    print(f"{config.preset}: {len(cut)} slices; {provenance()}")
    summary = table.groupby(["region", "method"], sort=False)[columns].agg(["mean", "std"])
    print(summary.round(3).to_string())


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
