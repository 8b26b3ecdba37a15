"""How fast are scans prepared and slices loaded, compared with MONAI's caches?

    python benchmarks/data_speed.py --workers 2

Makes phantom volumes in Hounsfield units (NIfTI) and prepares them. Then loads every slice once in
random order from the prepared dataset, from MONAI's ``CacheDataset`` (all in memory) and from its
``PersistentDataset`` (a file per slice), both made of the same slices. Prints a Markdown table, and
the time for the article's 444,034 slices. Rounds alternate, so that noise affects all equally.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import tyro
from monai.data import CacheDataset, PersistentDataset
from monai.transforms import Transform

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import LungMethod, Preprocessing
from pyro_stitchnet.data.scans.volume import axial_affine

ARTICLE = 444_034


@dataclass
class Config:
    volumes: int = 64  # with fewer, most of the time is the start of the workers
    slices: int = 16  # of a volume
    side: int = 256  # of a slice before
    size: int = 352  # and after
    lungs: LungMethod = "classical"
    workers: int = 2
    rounds: int = 3


class Load(Transform):  # MONAI caches the results of its own transforms only
    """Load a slice of a prepared dataset by its number."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, data: dict[str, int]) -> tuple:
        return self.dataset[data["slice"]]


def seconds(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scans").mkdir()
        for i in range(config.volumes):
            made = phantom_slices([i], config.slices, size=config.side)
            voxels = (made.images.numpy() * 1500 - 1250).astype(np.int16)
            image = nib.Nifti1Image(voxels, axial_affine((5.0, 1.4, 1.4)))
            nib.save(image, folder / "scans" / f"{i:03}.nii.gz")
        steps = Preprocessing(size=config.size, lungs=config.lungs)

        def prepared(workers: int) -> Dataset:
            return prepare(
                [str(folder / "scans")],
                folder / f"by_{workers}",
                preprocessing=steps,
                workers=workers,
                progress=False,
            )

        taken = {workers: seconds(lambda w=workers: prepared(w)) for workers in {1, config.workers}}
        dataset = Dataset(folder / "by_1")
        stored = sum(p.stat().st_size for p in dataset.folder.rglob("*") if p.is_file())
        items = [{"slice": i} for i in range(len(dataset))]

        load = Load(dataset)
        stores: dict[str, Sequence] = {
            "prepared dataset": dataset,
            "MONAI CacheDataset": CacheDataset(items, load, progress=False, copy_cache=False),
            "MONAI PersistentDataset": PersistentDataset(items, load, cache_dir=folder / "cache"),
        }
        order = np.random.default_rng(0).permutation(len(dataset)).tolist()
        times: dict[str, list[float]] = {name: [] for name in stores}
        for _ in range(config.rounds + 1):
            for name, store in stores.items():
                times[name].append(seconds(lambda s=store: [s[i] for i in order]))
        n = len(dataset)
        print(f"{n} slices of {config.size} x {config.size}, {stored / n:.0f} bytes a slice\n")
        print("| work | slices/s | article's 444,034 slices |\n|---|---:|---:|")
        for workers, time_taken in taken.items():
            hours = ARTICLE * time_taken / n / 3600
            print(f"| prepare, {workers} workers | {n / time_taken:.1f} | {hours:.1f} h |")
        for name, of_rounds in times.items():
            rate = n / median(of_rounds[1:])  # the first round fills caches
            print(f"| load, {name} | {rate:.0f} | {ARTICLE / rate / 60:.1f} min |")
        print(f"\n{ARTICLE * stored / n / 1e9:.0f} GB for the article's slices")


if __name__ == "__main__":
    main(tyro.cli(Config))
