"""The cost of `stitchnet prepare`."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from measure import Measurement, Table, Work
from scans import decoded, write_phantoms

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.preprocessing.steps import LungMethod, Preprocessing

DECODING = "decode and resize"


@dataclass
class Prepare(Measurement):
    """`stitchnet prepare`, compared with decoding and resizing the same files.

    The command fails if `prepare` without lung fields stores another number of slices than the
    files have.
    """

    folder: Annotated[Path | None, tyro.conf.Positional] = None
    """PNG, JPEG or DICOM files, or NIfTI volumes; NIfTI phantoms if none is given."""
    size: int = 352  # rows and columns of a prepared slice
    volumes: int = 16  # phantoms
    slices: int = 16  # of a phantom
    side: int = 256  # rows and columns of a phantom
    lungs: tuple[LungMethod, ...] = ("none", "classical")
    workers: tuple[int, ...] = (0,)  # 0 works in one process

    def run(self) -> None:
        self.print_origin()
        with tempfile.TemporaryDirectory() as name:
            if self.folder is None:
                write_phantoms(Path(name), self.volumes, self.slices, self.side, self.seed)
            self.compare(self.folder or Path(name))

    def compare(self, folder: Path) -> None:
        counts: dict[str, int] = {}

        def decoding() -> None:
            counts[DECODING] = sum(1 for _ in decoded(folder, self.size))

        def preparing(name: str, lungs: LungMethod, workers: int) -> Work:
            def work() -> None:
                with prepared(folder, self.size, lungs, workers) as dataset:
                    counts[name] = len(dataset)

            return work

        works: dict[str, Work] = {DECODING: decoding}
        for lungs in self.lungs:
            for workers in self.workers:
                name = f"`--lungs {lungs} --workers {workers}`"
                works[name] = preparing(name, lungs, workers)
        times = self.time(works)
        for name, count in counts.items():
            if "--lungs none" in name and count != counts[DECODING]:
                raise SystemExit(f"{name}: {count} slices of {counts[DECODING]}")
        rates = {n: f"{counts[n] / np.median(taken[:, 0]):.1f}" for n, taken in times.items()}
        Table(DECODING, "slices/s").add(f"{counts[DECODING]} slices", times, rates)


@contextmanager
def prepared(folder: Path, size: int, lungs: LungMethod, workers: int = 0) -> Iterator[Dataset]:
    """The dataset of a folder, for a while."""
    steps = Preprocessing(size=size, lungs=lungs)
    with tempfile.TemporaryDirectory() as out:
        yield prepare(
            [str(folder)],
            Path(out, "data"),
            preprocessing=steps,
            workers=workers,
            progress=False,
        )
