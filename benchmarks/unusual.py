"""Does a model detect images that are not lung CT? By its likelihood, corrected in several ways.

    python benchmarks/unusual.py MODEL DATASET --patients test

Compares slices of a prepared dataset with images of other kinds, all of the same size: uniform
noise, the Shepp-Logan phantom of a head, pydicom's own CT and MR slices, photographs of
scikit-image, and negatives of the dataset's slices. Prints the AUROC of each score for each kind
(the probability that an unusual image scores higher than a slice): the negative evidence bound; the
same minus the bits of the image as PNG (Serra et al., ICLR 2020); the likelihood ratio of Havtorn
et al. (ICML 2021) for each level; the mean entropy of the labels; the library's ``unusual``, with
the slices of the validation patients as usual ones, or with all other slices (``--patients all``).
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
from pyro_stitchnet.metrics.selection import auroc
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import (
    ReadOutOptions,
    likelihood_ratio,
    log_evidence,
    seeded,
    uncertainty,
    unusual,
)
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.training import checkpoint

CPU = torch.device("cpu")
PHOTOGRAPHS = ("camera", "coins", "moon", "page", "text", "clock", "brick", "grass", "gravel")


@dataclass
class Config:
    model: tyro.conf.Positional[Path]
    data: tyro.conf.Positional[Path]
    patients: Literal["test", "all"] = "test"
    most: int = 24  # slices
    samples: int = 4
    only: tuple[str, ...] = ()  # scores to compute, all by default


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """An image of any size as a square one in [0, 1]."""
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1)
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR)).clip(
        0, 1
    )


def images(size: int, usual: Tensor) -> Mapping[str, Tensor]:
    rng = np.random.default_rng(0)
    head = shepp_logan_phantom()
    turned = [np.rot90(head, k)[:, :: 1 - 2 * (k % 2)] for k in range(4)]
    noisy = [np.clip(t + rng.normal(0, 0.03, t.shape), 0, 1) for t in turned]
    scans = [
        pydicom.dcmread(get_testdata_file(name)).pixel_array
        for name in ("CT_small.dcm", "MR_small.dcm")
    ]
    photos = [getattr(photographs, name)() for name in PHOTOGRAPHS]
    kinds = {
        "noise": list(rng.random((8, size, size))),
        "head phantom": noisy,
        "other CT and MR": scans,
        "photographs": photos,
        "negatives": list(1 - usual.flip(-2).numpy()),
    }
    return {
        kind: torch.from_numpy(np.stack([resized(image, size) for image in some])).float()
        for kind, some in kinds.items()
    }


def png_nats(x: Tensor) -> Tensor:
    """The size of 8-bit images as PNG, in nats per pixel."""
    nats = []
    for image in (255 * x).round().byte().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="png", optimize=True)
        nats.append(len(file.getvalue()) * 8 * np.log(2) / image.size)
    return torch.tensor(nats)


def scores(config: Config, net: StitchNet, x: Tensor, usual: Tensor) -> dict[str, Tensor]:
    """How unusual each image is, by each score."""
    n = config.samples
    options = ReadOutOptions(samples=n)

    def nats() -> Tensor:
        # densities on [0, 1] as masses of 256 grey levels, like those of PNG
        return np.log(256) - log_evidence(net, x, n) / x[0].numel()

    functions: dict[str, Callable[[], Tensor]] = {
        "evidence": nats,
        "evidence - PNG": lambda: nats() - png_nats(x),
        **{
            f"likelihood ratio, level {k}": lambda k=k: likelihood_ratio(net, x, k, n)
            for k in range(1, 5)
        },
        "entropy of labels": lambda: uncertainty(net, x, options).entropy.flatten(1).mean(1),
        "unusual": lambda: unusual(net, x, usual, n),
    }
    result = {}
    for name, score in functions.items():
        if not config.only or name in config.only:
            with seeded(0, CPU):
                result[name] = score()
    return result


def main(config: Config) -> None:
    net, info = checkpoint.load(config.model)
    dataset = Dataset(config.data)
    rows = others = np.arange(len(dataset))
    if config.patients == "test":
        rows, others = (
            np.flatnonzero(dataset.manifest["patient"].isin(info["patients"][part]))
            for part in ("test", "validation")
        )
    rows = rows[np.linspace(0, len(rows) - 1, min(config.most, len(rows))).astype(int)]
    others = np.setdiff1d(others, rows)
    if not len(rows) or not len(others):
        raise SystemExit(f"{config.data}: has no slices to score, or none to compare them with")
    usual, reference = (dataset.take(some).load().images for some in (rows, others))
    known = scores(config, net, usual, reference)
    table = {}
    for kind, x in images(dataset.size, usual).items():
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
