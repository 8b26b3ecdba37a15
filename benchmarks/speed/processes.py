"""The cost of a training slice with several processes."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measure import Measurement, Table, cpu_seconds

from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing

ONE = "one process"


@dataclass
class Processes(Measurement):
    """`stitchnet train` with several processes, compared with one, in seconds a slice.

    Every process has one thread and the same number of slices a step. The wall clock is that of the
    steps; CPU includes the start of the processes, so take many steps.
    """

    rounds: int = 3
    preset: str = "tiny"
    size: int = 96  # rows and columns of a slice
    per_process: int = 4  # labelled slices
    steps: int = 20
    processes: int = 2

    def run(self) -> None:
        self.print_origin()
        counts = {ONE: 1, f"{self.processes} processes": self.processes}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            slices = phantom_slices(range(8), 2, size=self.size, seed=self.seed)
            write_folder(slices, folder / "slices")
            data = prepare(
                [str(folder / "slices")],
                folder / "data",
                preprocessing=Preprocessing(size=self.size, lungs="none"),
                progress=False,
            ).folder
            taken = [
                [self.train(data, folder / f"{i}-{n}", n) for n in counts.values()]
                for i in range(self.rounds)
            ]
        times = dict(zip(counts, np.array(taken).swapaxes(0, 1), strict=True))
        rates = {n: f"{1 / np.median(seconds[:, 0]):.2f}" for n, seconds in times.items()}
        case = f"`{self.preset}`, {self.steps} steps, {self.per_process} slices of {self.size}"
        Table(ONE, "slices/s").add(case, times, rates)

    def train(self, data: Path, out: Path, processes: int) -> tuple[float, float]:
        """Seconds a slice, of the wall clock and of CPU."""
        options = {
            "out": out, "preset": self.preset, "steps": self.steps, "processes": processes,
            "labelled-per-batch": self.per_process, "unlabelled-per-batch": 0, "device": "cpu",
            "seed": self.seed,
        }  # fmt: skip
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        flags = ["--fast", "--no-progress", "--no-tensorboard"]
        begun = cpu_seconds()
        subprocess.run(
            [sys.executable, "-m", "pyro_stitchnet", "train", str(data), *words, *flags],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True,
        )  # fmt: skip
        cpu = cpu_seconds() - begun
        steps_per_second = json.loads((out / "run.json").read_text())["steps_per_second"]
        slices = self.per_process * processes
        return 1 / (steps_per_second * slices), cpu / (self.steps * slices)
