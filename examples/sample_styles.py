"""Draw z many times for some slices, and show the spread of the styles and the labels.

    stitchnet train DATASET --out runs/some
    python examples/sample_styles.py runs/some/model.pt DATASET --out styles.png

A row per slice: the slice, its segmentation, the entropy of its labels over the draws, and for each
style the mean over draws and five times the standard deviation.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from torch import Tensor

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.figures import overlay, save_figure
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import style_gaps
from pyro_stitchnet.training import checkpoint


@dataclass
class Config:
    model: tyro.conf.Positional[Path]
    data: tyro.conf.Positional[Path]
    out: Path = Path("styles.png")
    draws: int = 50
    slices: int = 3
    seed: int = 0


@torch.no_grad()
def sample(net: StitchNet, x: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    """Label probabilities p(y | x, z) and mean styles, each (draws, N, H, W, K)."""
    with net.memo.one_pass():  # the slices are encoded once
        drawn = [net.guide(x) for _ in range(draws)]
        probabilities = [net.log_posterior(z1, x).softmax(-1) for z1 in drawn]
        styles = [net.picture(z1).styles.mean for z1 in drawn]
    return torch.stack(probabilities), torch.stack(styles)


def draw(x: Tensor, probabilities: Tensor, styles: Tensor) -> Figure:
    """A row per slice."""
    mean, spread = styles.mean(0), 5 * styles.std(0)
    p = probabilities.mean(0)
    entropy = -(p * p.clamp_min(1e-12).log2()).sum(-1) / 2  # of at most 2 bits
    titles = ["slice", "labels", "entropy"]
    titles += [f"{name}\n{what}" for name in LABELS for what in ("mean", "5 x deviation")]
    figure = Figure(figsize=(1.5 * len(titles), 1.7 * len(x) + 0.4), layout="constrained")
    for row, axes in enumerate(figure.subplots(len(x), len(titles), squeeze=False)):
        shown = [x[row], overlay(x[row], p[row].argmax(-1)), entropy[row]]
        shown += [m[row, ..., k] for k in range(len(LABELS)) for m in (mean, spread)]
        for ax, title, image in zip(axes, titles, shown, strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=1)
            ax.set_title("" if row else title, fontsize=8)
            ax.axis("off")
    return figure


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    net, _ = checkpoint.load(config.model)
    dataset = Dataset(config.data)
    lesions = np.flatnonzero(dataset.manifest["has_ggo"] | dataset.manifest["has_consolidation"])
    chosen = (lesions if len(lesions) else np.arange(len(dataset)))[: config.slices]
    x = dataset.take(chosen).load().images
    probabilities, styles = sample(net, x, config.draws)
    save_figure(draw(x, probabilities, styles), config.out)
    for pair, gap in style_gaps(styles.mean(0)).items():
        print(f"style_gap {pair}: {gap:.3f} grey units")
    print(f"figure: {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
