"""Does a model notice what is no lung CT? By its likelihood, corrected in several ways.

    python benchmarks/unusual.py runs/covid/model.pt runs/all256 --patients test

Scores slices of a prepared dataset against pictures of other kinds, all of the same size: uniform
noise, the Shepp-Logan phantom of a head, pydicom's own CT and MR slices, photographs of
scikit-image, the dataset's slices upside down as negatives. Prints the AUROC of each score for each
kind (the probability that an unusual picture scores as more unusual than a slice): the negative
evidence bound; that minus the bits that PNG needs for the picture (Serra et al., ICLR 2020); the
likelihood ratio of Havtorn et al. (ICML 2021) for each level; the mean entropy of the labels; the
library's ``unusual``, its usual slices being those of the validation patients.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pydicom
import torch
import tyro
from PIL import Image
from pydicom.data import get_testdata_file
from skimage import data as photographs
from skimage.data import shepp_logan_phantom
from torch import Tensor

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.evaluation.metrics.selection import auroc
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import likelihood_ratio, log_evidence, seeded, uncertainty, unusual
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training import checkpoint

CPU = torch.device("cpu")
PHOTOGRAPHS = ("camera", "coins", "moon", "page", "text", "clock", "brick", "grass", "gravel")


@dataclass
class Config:
    model: tyro.conf.Positional[Path]
    data: tyro.conf.Positional[Path]
    patients: Literal["test", "validation", "all"] = "test"
    most: int = 24  # slices
    samples: int = 4
    only: tuple[str, ...] = ()  # scores to take, all by default


def fitted(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture of any size as a square one in [0, 1]."""
    low, high = np.percentile(picture, (0.5, 99.5))
    grey = np.clip((picture.astype(np.float32) - low) / (high - low), 0, 1)
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR)).clip(
        0, 1
    )


def pictures(size: int, usual: Tensor) -> Mapping[str, Tensor]:
    rng = np.random.default_rng(0)
    head = shepp_logan_phantom()
    turned = [np.rot90(head, k)[:, :: 1 - 2 * (k % 2)] for k in range(4)]
    noisy = [np.clip(t + rng.normal(0, 0.03, t.shape), 0, 1) for t in turned]
    scans = [
        pydicom.dcmread(get_testdata_file(name)).pixel_array
        for name in ("CT_small.dcm", "MR_small.dcm")
    ]
    taken = [getattr(photographs, name)() for name in PHOTOGRAPHS]
    kinds = {
        "noise": list(rng.random((8, size, size))),
        "head phantom": noisy,
        "other CT and MR": scans,
        "photographs": taken,
        "negatives": list(1 - usual.flip(-2).numpy()),
    }
    return {
        kind: torch.from_numpy(np.stack([fitted(p, size) for p in some])).float()
        for kind, some in kinds.items()
    }


def png_nats(x: Tensor) -> Tensor:
    """What PNG needs for 8-bit pictures, in nats a pixel."""
    found = []
    for picture in (255 * x).round().byte().numpy():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="png", optimize=True)
        found.append(len(file.getvalue()) * 8 * np.log(2) / picture.size)
    return torch.tensor(found)


def scores(config: Config, net: StitchNet, x: Tensor, usual: Tensor) -> dict[str, Tensor]:
    """How unusual each picture is, by each score."""
    n = config.samples

    def nats() -> Tensor:
        # Densities of [0, 1] are turned into masses of 256 grey levels, as PNG's are.
        return np.log(256) - log_evidence(net, x, n) / x[0].numel()

    every: dict[str, Callable[[], Tensor]] = {
        "evidence": nats,
        "evidence - PNG": lambda: nats() - png_nats(x),
        **{
            f"likelihood ratio, level {k}": lambda k=k: likelihood_ratio(net, x, k, n)
            for k in range(1, 5)
        },
        "entropy of labels": lambda: uncertainty(net, x, samples=n).entropy.flatten(1).mean(1),
        "unusual": lambda: unusual(net, x, usual, n),
    }
    found = {}
    for name, score in every.items():
        if not config.only or name in config.only:
            with seeded(0, CPU):
                found[name] = score()
    return found


def main(config: Config) -> None:
    net, info = checkpoint.load(config.model)
    dataset = Dataset(config.data)
    rows = np.arange(len(dataset))
    if config.patients != "all":
        known = dataset.manifest["patient"].isin(info["patients"][config.patients])
        rows = np.flatnonzero(known)
    rows = rows[np.linspace(0, len(rows) - 1, min(config.most, len(rows))).astype(int)]
    usual = dataset.take(rows).load().images
    reference = usual
    if config.patients == "test":
        validating = dataset.manifest["patient"].isin(info["patients"]["validation"])
        reference = dataset.take(np.flatnonzero(validating)).load().images
    known = scores(config, net, usual, reference)
    table = {}
    for kind, x in pictures(dataset.size, usual).items():
        odd = scores(config, net, x, reference)
        table[f"{kind} ({len(x)})"] = {
            name: auroc(
                torch.cat([known[name], odd[name]]),
                torch.arange(len(usual) + len(x)) >= len(usual),
            )
            for name in known
        }
    print(f"{len(usual)} slices; {provenance()}")
    print(pd.DataFrame(table).round(3).to_string())


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
