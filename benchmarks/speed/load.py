"""The cost of loading slices of a prepared dataset."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measure import Measurement, Table, Work
from prepare import prepared
from scans import write_phantoms

from pyro_stitchnet.data.datasets.dataset import Dataset

MONAI = "MONAI PersistentDataset"


@dataclass
class Load(Measurement):
    """Every slice of a prepared dataset once in random order, compared with MONAI's file cache.

    MONAI's caches are of the same slices: `PersistentDataset` with one file for each slice, and
    `CacheDataset` in memory. The command fails if their slices differ.
    """

    size: int = 352  # rows and columns of a slice
    volumes: int = 64  # phantoms
    slices: int = 16  # of a phantom

    def run(self) -> None:
        self.print_origin()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "scans").mkdir()
            write_phantoms(folder / "scans", self.volumes, self.slices, 256, self.seed)
            with prepared(folder / "scans", self.size, "none") as dataset:
                self.compare(dataset, folder / "cache")

    def compare(self, dataset: Dataset, cache: Path) -> None:
        from monai.data import CacheDataset, PersistentDataset  # seconds to import
        from monai.transforms import Lambda

        get = Lambda(lambda item: dataset[item["slice"]])
        items = [{"slice": i} for i in range(len(dataset))]
        stores: dict[str, Sequence] = {
            MONAI: PersistentDataset(items, get, cache_dir=cache),
            "MONAI CacheDataset": CacheDataset(items, get, progress=False, copy_cache=False),
            "prepared dataset": dataset,
        }
        for name, store in stores.items():
            if not all(map(torch.equal, store[0], dataset[0])):
                raise SystemExit(f"{name}: its slices differ from those of the dataset")
        order = np.random.default_rng(self.seed).permutation(len(dataset)).tolist()

        def loading(store: Sequence) -> Work:
            return lambda: [store[i] for i in order]

        times = self.time({name: loading(store) for name, store in stores.items()})
        files = [path for path in dataset.folder.rglob("*") if path.is_file()]
        stored = sum(path.stat().st_size for path in files) / len(dataset)
        rates = {n: f"{len(dataset) / np.median(taken[:, 0]):.0f}" for n, taken in times.items()}
        print(f"{stored / 1e3:.1f} kB for a slice of the prepared dataset\n")
        Table(MONAI, "slices/s").add(f"{len(dataset)} slices of {self.size}", times, rates)
