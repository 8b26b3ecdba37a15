"""Draw the figure of README and docs: a phantom slice, its segmentation and its styles.

    python docs/overview.py MODEL --out docs/overview.png

`make figures` runs it with a model of `benchmarks/counterfactuals.py`. Of some patients that the
model was not trained on, the slice with large lesions of both kinds is drawn.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from matplotlib.figure import Figure

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.figures import overlay, save_figure
from pyro_stitchnet.figures.grids import NAMES
from pyro_stitchnet.labels import CONSOLIDATION, GGO
from pyro_stitchnet.posterior import ReadOutOptions, segment
from pyro_stitchnet.training import checkpoint


@dataclass
class Config:
    model: tyro.conf.Positional[Path]
    out: Path = Path("docs/overview.png")
    size: int = 128
    first: int = 10_000  # number of the first phantom patient
    patients: int = 30
    samples: int = 16


def main(config: Config) -> None:
    torch.manual_seed(0)
    net, _ = checkpoint.load(config.model)
    numbers = range(config.first, config.first + config.patients)
    slices = phantom_slices(numbers, 2, size=config.size)
    truth = slices.labels()
    areas = torch.stack([(truth == k).flatten(1).sum(1) for k in (GGO, CONSOLIDATION)])
    one = int(areas.amin(0).argmax())
    x = slices.images[one : one + 1]
    answer = segment(net, x, ReadOutOptions(samples=config.samples))
    p = answer.probabilities[0]
    entropy = -(p * p.clamp_min(1e-12).log2()).sum(0) / 2  # of at most 2 bits
    shown = {
        "slice": x[0],
        "truth": overlay(x[0], truth[one]),
        "segmentation": overlay(x[0], answer.labels[0]),
        "entropy": entropy,
        **{f"style: {name}": answer.styles[0, k] for k, name in enumerate(NAMES)},
    }
    figure = Figure(figsize=(1.5 * len(shown), 1.8), layout="constrained")
    for ax, (title, image) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, fontsize=8)
        ax.axis("off")
    save_figure(figure, config.out)
    print(f"figure: {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
