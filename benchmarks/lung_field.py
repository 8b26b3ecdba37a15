"""How good is the lung field, and how much of the lesions does it keep?

    python benchmarks/lung_field.py --shared ../shared/data

Prints a Markdown table with a row per set: mean and 5th percentile of the Dice over slices with
lung, the share of lesion pixels inside the field (mean over slices with lesions), and seconds per
slice. "Tuned on" in a row's name: the constants of the classical method were chosen on these
slices; "seen": their scores were known during development. Sets that are missing are left out.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import SimpleITK as sitk
import tyro
from PIL import Image
from scipy import ndimage

from pyro_stitchnet.data.phantoms.phantom import phantoms
from pyro_stitchnet.data.preprocessing.lungs import LUNG_METHODS

UNKNOWN = (1.0, 1.0, 1.0)
ENLARGED = 8  # times, to the size of a clinical scan


@dataclass
class Config:
    shared: Path = Path("../shared/data")
    segmenter: Literal["classical", "lungmask"] = "classical"
    patients: int = 30  # phantoms, four slices each; the method was tuned on the first 15
    size: int = 128  # of the phantoms


@dataclass
class Case:
    """Slices (S, R, C) that are segmented together, and their labels, lung above 0."""

    set: str
    slices: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, ...] = UNKNOWN
    hounsfield: bool = False


def phantom_cases(patients: int, size: int) -> Iterator[Case]:
    for number, phantom in enumerate(phantoms(patients, 4, size=size)):
        name = "phantoms, tuned on" if number < 60 else "phantoms, not tuned on"
        yield Case(name, phantom.image[None], phantom.labels[None])


def volume_cases(folder: Path) -> Iterator[Case]:
    if not (folder / "ct-64.nrrd").exists():
        return
    image = sitk.ReadImage(folder / "ct-64.nrrd")
    regions = sitk.GetArrayFromImage(sitk.ReadImage(folder / "lm-64.nrrd")) & 255
    slices, labels = sitk.GetArrayFromImage(image).astype(np.float32), (regions > 0).astype(float)
    between, row, column = image.GetSpacing()[::-1]
    name = "CIP volume, seen"
    yield Case(name, slices, labels, (between, row, column), hounsfield=True)
    fine = (between, row / ENLARGED, column / ENLARGED)
    noise = np.random.default_rng(0).normal(0, 30, (*enlarged(labels).shape,))
    large = (enlarged(slices) + noise).astype(np.float32)
    yield Case(f"{name}, {ENLARGED} times as fine", large, enlarged(labels) > 0.5, fine, True)


def enlarged(slices: np.ndarray) -> np.ndarray:
    zoom = (1, ENLARGED, ENLARGED)
    return ndimage.zoom(slices, zoom, order=1, grid_mode=True, mode="nearest")


def image_cases(folder: Path) -> Iterator[Case]:
    if not (folder / "index.csv").exists():
        return
    index = pd.read_csv(folder / "index.csv", dtype=str)
    for file, patient in zip(index["file"], index["patient"], strict=True):
        grey = np.asarray(Image.open(folder / "images" / file, formats=("PNG",)).convert("L"))
        grey = grey.astype(np.float32) / 255
        labels = np.asarray(Image.open(folder / "masks" / file, formats=("PNG",)))
        name = {
            "coronacases_001": "partial 001 and 002, half tuned on",
            "coronacases_002": "partial 001 and 002, half tuned on",
            "coronacases_003": "partial 003, not tuned on",
        }.get(patient, f"{folder.name}, seen")
        yield Case(name, grey[None], labels[None])


def figures(case: Case, segmenter: str) -> Iterator[dict[str, str | float]]:
    start = time.perf_counter()
    field = LUNG_METHODS[segmenter](case.slices, case.spacing, hounsfield=case.hounsfield)
    seconds = (time.perf_counter() - start) / len(field)
    for predicted, labels in zip(field, case.labels, strict=True):
        lung, lesion = labels > 0, labels > 1
        if not lung.any():
            continue
        yield {
            "set": case.set,
            "dice": 2 * (predicted & lung).sum() / (predicted.sum() + lung.sum()),
            "lesion": predicted[lesion].mean() if lesion.any() else np.nan,
            "seconds": seconds,
        }


def main(config: Config) -> None:
    cases = [
        *phantom_cases(config.patients, config.size),
        *volume_cases(config.shared / "loader-samples"),
        *image_cases(config.shared / "covid-ct" / "partial"),
        *image_cases(config.shared / "covid-ct" / "labelled"),
    ]
    rows = pd.DataFrame([row for case in cases for row in figures(case, config.segmenter)])
    print("| Set | Slices | Dice | 5th percentile | Lesion kept | Seconds a slice |")
    print("|---|---|---|---|---|---|")
    for name, group in rows.groupby("set", sort=False):
        print(
            f"| {name} | {len(group)} | {group['dice'].mean():.3f} "
            f"| {group['dice'].quantile(0.05):.3f} | {group['lesion'].mean():.3f} "
            f"| {group['seconds'].mean():.3f} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Config))
