"""What does `stitchnet prepare` cost, compared with decoding and resizing the same files?

    python benchmarks/prepare_speed.py ../shared/data/covid-ct/unlabelled

The folder holds PNG or JPEG pictures, or DICOM files. Prints a Markdown table of seconds of CPU,
without imports, and of the ratio to decoding and resizing alone: the least of several rounds.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import tyro
from PIL import Image

from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS


@dataclass
class Config:
    folder: tyro.conf.Positional[Path]
    size: int = 352
    rounds: int = 3


def decode(folder: Path, size: int) -> None:
    for path in folder.rglob("*.*"):
        if path.suffix.lower() in IMAGE_ENDINGS:
            grey = np.asarray(Image.open(path).convert("L"), np.float32)
        elif path.suffix == ".dcm":
            grey = pydicom.dcmread(path).pixel_array.astype(np.float32)
        else:
            continue
        Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR)


def seconds(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def main(config: Config) -> None:
    def prepared(lungs: str) -> None:
        steps = Preprocessing(size=config.size, lungs=lungs)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as out:
            prepare([str(config.folder)], Path(out, "data"), preprocessing=steps, progress=False)

    work: dict[str, Callable[[], object]] = {
        "decode and resize": lambda: decode(config.folder, config.size),
        "prepare, lungs none": lambda: prepared("none"),
        "prepare, lungs classical": lambda: prepared("classical"),
    }
    rounds = [{name: seconds(task) for name, task in work.items()} for _ in range(config.rounds)]
    least = {name: min(times[name] for times in rounds) for name in work}
    print("| work | seconds | ratio |\n|---|---:|---:|")
    for name, taken in least.items():
        print(f"| {name} | {taken:.2f} | {taken / least['decode and resize']:.1f} |")


if __name__ == "__main__":
    main(tyro.cli(Config))
