"""Everything one can ask of a trained model, on slices of phantoms, with its pictures.

    python examples/ask.py runs/both/model.pt --out asked

Phantoms stand in for scans: their labels and their lungs without the lesions are known. Replace
``x`` with slices of your own, grey values in [0, 1] of shape (N, H, W).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

from pyro_stitchnet import figures as pictures
from pyro_stitchnet.data.phantoms.phantom import Phantom, phantoms
from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.posterior import (
    HEALED,
    active_units,
    between,
    counterfactual,
    edited,
    from_prior,
    grey_check,
    likelihood_ratio,
    log_evidence,
    redrawn,
    sample,
    seeded,
    segment,
    uncertainty,
)
from pyro_stitchnet.training import checkpoint


@dataclass
class Config:
    model: tyro.conf.Positional[Path]
    out: Path = Path("asked")
    size: int = 64
    slices: int = 3
    samples: int = 8
    first: int = 10_000  # the phantom patient to begin with


def ill_slices(config: Config) -> list[Phantom]:
    """The middle slices of the first patients who have lesions there."""
    found: list[Phantom] = []
    patient = config.first
    while len(found) < config.slices:
        (cut,) = phantoms([patient], 1, size=config.size)
        found += [cut] if (cut.labels >= GGO).mean() > 0.02 else []
        patient += 1
    return found


def main(config: Config) -> None:
    net, _ = checkpoint.load(config.model)
    cut = ill_slices(config)
    names = [phantom.patient for phantom in cut]
    x = torch.from_numpy(np.stack([phantom.image for phantom in cut]))
    truth = torch.from_numpy(np.stack([phantom.labels for phantom in cut])).long()
    n, pixels = config.samples, x[0].numel()
    config.out.mkdir(parents=True, exist_ok=True)

    def keep(name: str, figure: Figure) -> None:
        pictures.save_figure(figure, config.out / f"{name}.png")

    with seeded(0, x.device):
        # Which label, and how sure?
        answer = segment(net, x, samples=n)
        doubt = uncertainty(net, x, samples=max(n, 2))
        maps = {"entropy": doubt.entropy.numpy()}
        maps["mutual information"] = doubt.mutual_information.numpy()
        maps["disagreement"] = doubt.disagreement.numpy()
        labels = answer.labels.numpy()
        keep("uncertainty", pictures.uncertainties(x.numpy(), labels, maps, truth.numpy(), names))
        areas = (sample(net, x[:1], n, noise=True).labels >= GGO).float().mean((1, 2, 3))
        print(f"infected share of {names[0]}: {areas.min():.3f} to {areas.max():.3f}")

        # What if?
        present = answer.labels
        mask = torch.zeros(x.shape, dtype=torch.bool)
        mask[:, config.size // 2 : config.size * 3 // 4, : config.size // 2] = True
        wanted = {
            "healed": edited(present, HEALED),
            "GGO made\nconsolidation": edited(present, {GGO: CONSOLIDATION}),
            "GGO put in": edited(present, {HEALTHY: GGO}, within=mask),
        }
        changed = {
            name: counterfactual(net, x, new, present=answer.probabilities, samples=n).image.numpy()
            for name, new in wanted.items()
        }
        healthy = np.stack([phantom.healthy for phantom in cut])
        keep(
            "counterfactuals",
            pictures.counterfactuals(
                x.numpy(), present.numpy(), {**changed, "truly healthy": healthy}, names=names
            ),
        )

        # What does z hold, level by level, between slices, without any?
        columns = {"slice": x.numpy(), "all levels": answer.stitched.numpy()}
        for level in range(1, 6):
            anew = redrawn(net, x, level, 1).stitched[0].numpy()
            columns[f"{'z1' if level == 1 else f'z1 to z{level}'}\ndrawn anew"] = anew
        keep("levels", pictures.drawn(columns, names=names))
        line = between(net, x[:2], 7).stitched[:, 0].numpy()
        keep(
            "line",
            pictures.drawn({f"{i / 6:.2f}": picture[None] for i, picture in enumerate(line)}),
        )
        made = from_prior(net, 6, (config.size, config.size)).stitched[0].numpy()
        keep("prior", pictures.drawn({str(i + 1): picture[None] for i, picture in enumerate(made)}))
        print("active units by level:", {k: round(v, 3) for k, v in active_units(net, x).items()})

        # How likely is it?
        bound = log_evidence(net, x, 2 * n) / pixels
        ratio = likelihood_ratio(net, x, samples=n)
        for name, low, odd in zip(names, bound.tolist(), ratio.tolist(), strict=True):
            print(f"log p(x) of {name} at least {low:.3f} nats per pixel, {odd:.3f} by z1 and z2")
        keep("grey", pictures.grey_histograms(grey_check(net, x, truth, max(n, 2))))
    print(f"pictures: {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
