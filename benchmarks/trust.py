"""Whose probabilities are calibrated, and whose uncertainty finds errors? On one split of real CT.

    python benchmarks/trust.py runs/covid.data --weights IMAGENET.pt --out runs/trust

Trains the preset ``guided``, an ensemble of U-Nets with different seeds (Lakshminarayanan et al.,
NeurIPS 2017), and a U-Net with dropout of feature channels in training and, over many draws, in the
test (Gal & Ghahramani, ICML 2016). Steps and optimiser are the benchmark's; a validation fold
chooses the weights. Each model is kept, so that an interrupted run continues.

Prints for the test patients, over the pixels of the lung: calibration error and Brier score of both
lesions, before and after a temperature fitted on the validation patients; the AUROC of uncertainty
against wrong pixels; Dice of the infection over the most certain pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor
from torch.nn import functional

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.partition import partition
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.baselines.base import Supervised
from pyro_stitchnet.evaluation.benchmark import methods
from pyro_stitchnet.evaluation.benchmark.cells import Cell
from pyro_stitchnet.evaluation.benchmark.consistency import slices_digest
from pyro_stitchnet.evaluation.benchmark.runner import train_candidate
from pyro_stitchnet.evaluation.benchmark.spec import Budget, Entry, Spec
from pyro_stitchnet.figures import (
    reliability as reliability_diagram,
)
from pyro_stitchnet.figures import (
    save_figure,
    uncertainties,
)
from pyro_stitchnet.figures import (
    selective as selective_diagram,
)
from pyro_stitchnet.metrics.calibration import (
    calibration,
    fit_temperature,
    reliability,
    tempered,
)
from pyro_stitchnet.metrics.scores import slice_scores
from pyro_stitchnet.metrics.selection import error_auroc, selective
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOut, ReadOutOptions, entropy, seeded, uncertainty
from pyro_stitchnet.posterior.views import average_views
from pyro_stitchnet.presets import OptimiserConfig
from pyro_stitchnet.runtime import torch_files
from pyro_stitchnet.runtime.files import write_atomically
from pyro_stitchnet.runtime.precision import Precision
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.learner import ElboLearner, Learner
from pyro_stitchnet.training.preparation import check_preparation

DROPOUT = 0.2  # share of the features' channels
CPU = torch.device("cpu")


@dataclass
class Config:
    data: tyro.conf.Positional[Path]
    out: Path = Path("runs/trust")
    model: Path | None = None  # a StitchNet with a classifier, evaluated alone on its own split
    weights: str | None = None
    labels: int | None = None
    folds: int = 3
    fold: int = 0
    seed: int = 0
    steps: int = 800
    precision: Precision = "auto"  # of the networks in training
    members: int = 3
    samples: int = 8
    views: int = 1
    once: bool = False  # stop after training one model; the same command continues


class DropoutUNet(UNet):
    """A U-Net that drops channels of its encoder's features, in every mode."""

    def features(self, x: Tensor) -> list[Tensor]:
        return [functional.dropout2d(f, DROPOUT) for f in super().features(x)]


methods.METHODS["unet-dropout"] = methods.Method(  # type: ignore[index]
    lambda weights: Supervised(DropoutUNet(weights))
)

Result = tuple[Tensor, dict[str, Tensor]]
"""Probabilities, and maps of their uncertainty."""


def trained(config: Config, method: str, seed: int, slices: Mapping[str, Slices]) -> Learner:
    """A model, read from its file or trained."""
    entry = Entry(method)
    spec = Spec(
        config.data, {method: entry}, [Budget(config.labels, config.folds)],
        weights=config.weights, steps=config.steps, affine=True,
        validate_every=min(200, config.steps), precision=config.precision, device="cpu",
        optimiser=OptimiserConfig(learning_rate=2e-3, warmup=50, decay="cosine", ema=0.98),
    )  # fmt: skip
    cell = Cell(method, entry, spec.budgets[0], config.fold, seed)
    digest = slices_digest(Dataset(config.data))
    split = f"{config.labels}-{config.folds}-{config.fold}-{config.seed}-{digest}"
    path = config.out / f"{method}-{spec.digest(entry, spec.budgets[0])}-{split}-{seed}.pt"
    if path.exists():
        learner = methods.METHODS[method].build(config.weights)
        learner.load_state_dict(torch_files.read(path))
        return learner.eval()
    learner, score = train_candidate(spec, cell, slices, {})
    torch_files.write(learner.state_dict(), path)
    print(f"{method}, seed {seed}: validation Dice {score:.3f}", flush=True)
    if config.once:
        raise SystemExit(0)
    return learner.eval()


def average(members: list[Tensor]) -> Result:
    """Mean probabilities of members or draws, and maps of their uncertainty."""
    p = torch.stack(members).mean(0)
    total, expected = entropy(p), torch.stack([entropy(member) for member in members]).mean(0)
    return p, {"entropy": total, "mutual information": total - expected}


def stitchnets(config: Config, net: StitchNet) -> dict[str, Callable[[Tensor], Result]]:
    """The read-outs of a StitchNet."""

    def read(x: Tensor, read_out: ReadOut) -> Result:
        options = ReadOutOptions(read_out, config.samples, config.views)
        with seeded(0, CPU):
            result = uncertainty(net, x, options)
        maps = {
            "entropy": result.entropy,
            "mutual information": result.mutual_information,
            "disagreement": result.disagreement,
        }
        return result.probabilities, maps

    return {
        "guided, q(y | x)": partial(read, read_out="guide"),
        "guided, posterior": partial(read, read_out="posterior"),
    }


def contenders(
    config: Config, slices: Mapping[str, Slices]
) -> Mapping[str, Callable[[Tensor], Result]]:
    """Every contender by name: a function from slices to probabilities and uncertainty."""
    guided = trained(config, "stitchnet-guided", 0, slices)
    members = [trained(config, "unet", s, slices) for s in range(config.members)]
    dropout = trained(config, "unet-dropout", 0, slices)
    assert isinstance(guided, ElboLearner)

    def predict(learner: Learner, x: Tensor) -> Tensor:
        return average_views(learner.probabilities, x, config.views)

    def draws(x: Tensor) -> Result:
        with seeded(0, CPU):
            return average([predict(dropout, x) for _ in range(config.samples)])

    return {
        "U-Net": lambda x: average([predict(members[0], x)]),
        f"U-Net, ensemble of {config.members}": lambda x: average(
            [predict(member, x) for member in members]
        ),
        "U-Net, dropout": draws,
        **stitchnets(config, guided.net),
    }


def split(config: Config, info: Mapping[str, Any]) -> dict[str, Slices]:
    """The slices of each part, of a model's own split or of a new one."""
    dataset = Dataset(config.data)
    if config.model is None:
        _, parts = partition(
            dataset,
            fold=config.fold,
            folds=config.folds,
            seed=config.seed,
            label_budget=config.labels,
        )
        return {part: chosen.load() for part, chosen in parts.items()}
    check_preparation(dataset, config.model, info)
    rows = {
        part: dataset.manifest["complete"] & dataset.manifest["patient"].isin(patients)
        for part, patients in info["patients"].items()
    }
    return {part: dataset.take(np.flatnonzero(chosen)).load() for part, chosen in rows.items()}


def main(config: Config) -> None:
    if config.model is not None:  # not into the folder of a comparison
        config.out = config.out / config.model.parent.name
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    net, info = checkpoint.load(config.model) if config.model else (None, {})
    slices = split(config, info)
    test, validation = slices["test"], slices["validation"]
    truth = test.labels()
    print({part: len(s) for part, s in slices.items()}, provenance(), flush=True)
    rows, bins, curves, drawn = [], {}, {}, {}
    predictors = stitchnets(config, net) if net else contenders(config, slices)
    for name, predict in predictors.items():
        p, maps = predict(test.images)
        temperature = fit_temperature(predict(validation.images)[0], validation.labels())
        scaled = tempered(p, temperature)
        labels = p.argmax(1)
        dice = slice_scores(truth, labels).groupby("lesion")["f1"].mean()
        rows.append(
            {
                "method": name,
                "dice_ggo": dice["GGO"],
                "dice_con": dice["CON"],
                "temperature": temperature,
                **calibration(p, truth),
                **{f"{k}_tempered": v for k, v in calibration(scaled, truth).items()},
                **{
                    f"auroc_{where}, {kind}": value
                    for kind, values in maps.items()
                    for where, value in error_auroc(values, labels, truth).items()
                },
            }
        )
        bins |= {name: reliability(p, truth), f"{name}, tempered": reliability(scaled, truth)}
        curves[name] = selective(maps["entropy"], labels, truth)
        drawn[name] = labels, maps
    table = pd.DataFrame(rows).set_index("method")
    write_atomically(config.out / "table.csv", table.to_csv())
    print(table.T.round(3).to_string())
    by_coverage = {name: curve.set_index("coverage")["dice"] for name, curve in curves.items()}
    print(pd.DataFrame(by_coverage).round(3).to_string())
    best = {n: t for n, t in bins.items() if n.startswith(("guided, p", "U-Net, ens"))}
    save_figure(reliability_diagram(best), config.out / "reliability.png")
    save_figure(selective_diagram(curves), config.out / "selective.png")
    labels, maps = drawn["guided, posterior"]
    some = torch.linspace(0, len(test) - 1, 5).long()
    save_figure(
        uncertainties(
            test.images[some].numpy(), labels[some].numpy(),
            {kind: values[some].numpy() for kind, values in maps.items()},
            truth[some].numpy(), [test.names[i] for i in some],
        ),
        config.out / "uncertainty.png",
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
