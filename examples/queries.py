"""All queries of a trained model, on slices of phantoms, with their figures.

    python examples/queries.py runs/both/model.pt --out queries

The labels of phantoms, and their lungs without lesions, are known. Replace ``x`` with your own
slices (N, H, W), grey values in [0, 1].
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

from pyro_stitchnet import figures
from pyro_stitchnet.data.phantoms.phantom import Phantom, phantoms
from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.posterior import (
    HEALED,
    ReadOutOptions,
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
    out: Path = Path("queries")
    size: int = 64
    slices: int = 3
    samples: int = 8
    first: int = 10_000  # number of the first phantom patient


def slices_with_lesions(config: Config) -> list[Phantom]:
    """The middle slices of the first patients with lesions there."""
    slices: list[Phantom] = []
    patient = config.first
    while len(slices) < config.slices:
        (phantom,) = phantoms([patient], 1, size=config.size)
        slices += [phantom] if (phantom.labels >= GGO).mean() > 0.02 else []
        patient += 1
    return slices


def main(config: Config) -> None:
    net, _ = checkpoint.load(config.model)
    cut = slices_with_lesions(config)
    names = [phantom.patient for phantom in cut]
    x = torch.from_numpy(np.stack([phantom.image for phantom in cut]))
    truth = torch.from_numpy(np.stack([phantom.labels for phantom in cut])).long()
    n, pixels = config.samples, x[0].numel()
    config.out.mkdir(parents=True, exist_ok=True)

    def save(name: str, figure: Figure) -> None:
        figures.save_figure(figure, config.out / f"{name}.png")

    with seeded(0, x.device):
        # Labels and their uncertainty
        answer = segment(net, x, ReadOutOptions(samples=n))
        measures = uncertainty(net, x, ReadOutOptions(samples=max(n, 2)))
        maps = {
            "entropy": measures.entropy.numpy(),
            "mutual information": measures.mutual_information.numpy(),
            "disagreement": measures.disagreement.numpy(),
        }
        labels = answer.labels.numpy()
        save("uncertainty", figures.uncertainties(x.numpy(), labels, maps, truth.numpy(), names))
        areas = (sample(net, x[:1], n, noise=True).labels >= GGO).float().mean((1, 2, 3))
        print(f"infected share of {names[0]}: {areas.min():.3f} to {areas.max():.3f}")

        # Counterfactuals
        present = answer.labels
        mask = torch.zeros(x.shape, dtype=torch.bool)
        mask[:, config.size // 2 : config.size * 3 // 4, : config.size // 2] = True
        label_maps = {
            "healed": edited(present, HEALED),
            "GGO made\nconsolidation": edited(present, {GGO: CONSOLIDATION}),
            "GGO inserted": edited(present, {HEALTHY: GGO}, within=mask),
        }
        changed = {
            name: counterfactual(net, x, new, present=answer.probabilities, samples=n).image.numpy()
            for name, new in label_maps.items()
        }
        healthy = np.stack([phantom.healthy for phantom in cut])
        save(
            "counterfactuals",
            figures.counterfactuals(
                x.numpy(), present.numpy(), {**changed, "truly healthy": healthy}, names=names
            ),
        )

        # What z holds: level by level, between two slices, and in the prior
        columns = {"slice": x.numpy(), "all levels": answer.stitched.numpy()}
        for level in range(1, 6):
            again = redrawn(net, x, level, 1).stitched[0].numpy()
            columns[f"{'z1' if level == 1 else f'z1 to z{level}'}\ndrawn again"] = again
        save("levels", figures.image_columns(columns, names=names))
        line = between(net, x[:2], 7).stitched[:, 0].numpy()
        save(
            "line",
            figures.image_columns({f"{i / 6:.2f}": image[None] for i, image in enumerate(line)}),
        )
        samples = from_prior(net, 6, (config.size, config.size)).stitched[0].numpy()
        save(
            "prior",
            figures.image_columns({str(i + 1): image[None] for i, image in enumerate(samples)}),
        )
        print("active units by level:", {k: round(v, 3) for k, v in active_units(net, x).items()})

        # Evidence
        evidence = log_evidence(net, x, 2 * n) / pixels
        ratio = likelihood_ratio(net, x, samples=n)
        for name, value, fine in zip(names, evidence.tolist(), ratio.tolist(), strict=True):
            print(f"log p(x) of {name} >= {value:.3f} nats per pixel, {fine:.3f} by z1 and z2")
        save("grey", figures.grey_histograms(grey_check(net, x, truth, max(n, 2))))
    print(f"figures: {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
