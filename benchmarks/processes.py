"""How many slices per second do two training processes reach, compared with one?

    python benchmarks/processes.py

Trains a preset on phantoms with one process and with two, one thread and the same number of slices
per process, in turn for some rounds. Prints slices per second and their ratio.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.runtime.provenance import provenance


@dataclass
class Config:
    preset: str = "tiny"
    size: int = 96
    per_process: int = 4  # labelled slices
    steps: int = 20
    rounds: int = 3
    processes: int = 2


def rate(config: Config, data: Path, out: Path, processes: int) -> float:
    """Slices per second."""
    options = {
        "out": out, "preset": config.preset, "steps": config.steps, "processes": processes,
        "labelled-per-batch": config.per_process, "unlabelled-per-batch": 0, "device": "cpu",
    }  # fmt: skip
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    flags = ["--fast", "--no-progress", "--no-tensorboard"]
    subprocess.run(
        [sys.executable, "-m", "pyro_stitchnet", "train", str(data), *words, *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True,
    )  # fmt: skip
    steps_per_second = json.loads((out / "run.json").read_text())["steps_per_second"]
    return float(steps_per_second) * config.per_process * processes


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(phantom_slices(range(8), 2, size=config.size), folder / "slices")
        data = prepare(
            [str(folder / "slices")],
            folder / "data",
            preprocessing=Preprocessing(size=config.size, lungs="none"),
            progress=False,
        ).folder
        rates = [
            [rate(config, data, folder / f"{i}-{n}", n) for n in (1, config.processes)]
            for i in range(config.rounds)
        ]
    about = provenance()
    print(f"{about['date']}, {about['machine']}, torch {about['torch']}, {config}\n")
    print("| processes | slices/s |\n|---|---:|")
    for n, column in zip((1, config.processes), zip(*rates, strict=True), strict=True):
        print(f"| {n} | {median(column):.2f} |")
    ratios = sorted(many / one for one, many in rates)
    print(f"\nratio: {median(ratios):.2f}, of the rounds {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Config))
