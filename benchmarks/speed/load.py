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

    MONAI's `PersistentDataset` has the same slices, each in a file. The command fails if its slices
    differ.
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
        from monai.data import PersistentDataset  # seconds to import
        from monai.transforms import Lambda

        get = Lambda(lambda item: dataset[item["slice"]])
        items = [{"slice": i} for i in range(len(dataset))]
        monai = PersistentDataset(items, get, cache_dir=cache)
        order = np.random.default_rng(self.seed).permutation(len(dataset)).tolist()

        def loading(store: Sequence) -> Work:
            return lambda: [store[i] for i in order]

        times = self.time({MONAI: loading(monai), "prepared dataset": loading(dataset)})
        if not all(
            torch.equal(*pair) for i in order for pair in zip(monai[i], dataset[i], strict=True)
        ):
            raise SystemExit(f"{MONAI}: its slices differ from those of the dataset")
        files = [path for path in dataset.folder.rglob("*") if path.is_file()]
        stored = sum(path.stat().st_size for path in files) / len(dataset)
        rates = {n: f"{len(dataset) / np.median(taken[:, 0]):.0f}" for n, taken in times.items()}
        print(f"{stored / 1e3:.1f} kB for a slice of the prepared dataset\n")
        Table(MONAI, "slices/s").add(f"{len(dataset)} slices of {self.size}", times, rates)
