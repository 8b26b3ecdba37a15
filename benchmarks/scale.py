"""Does it scale? Many slices prepared, listed and trained on, and many scans segmented by dask.

    python benchmarks/scale.py --out runs/scale

Every stage runs on a tenth of the slices and on all. Memory that does not depend on the number of
slices is the same for both. Scans are segmented by one process of this machine, then by two dask
workers, one of which is killed on the way; the results must be the same.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import psutil
import tyro

from pyro_stitchnet.cli.datasets import phantom
from pyro_stitchnet.data.phantoms.phantom import PHANTOM_WINDOW, phantom_slices
from pyro_stitchnet.runtime.provenance import provenance
from pyro_stitchnet.runtime.text_table import TextTable

PER_PATIENT = 20  # slices
PER_SCAN = 4  # slices
BATCH = 32  # slices
KILL_AFTER = 1 / 4  # of the scans


@dataclass
class Scale:
    """What is measured.

    Attributes:
        out: folder for the data and the results; must be new.
        slices: unlabelled slices to prepare and to train on.
        scans: to segment.
        size: rows and columns of both.
        seed: of the phantoms and the training.
    """

    out: Path
    slices: int = 20_000
    scans: int = 200
    size: int = 64
    seed: int = 0

    def run(self) -> None:
        """Measure, and print the table."""
        self.out.mkdir(parents=True)
        for name, value in provenance().items():
            print(f"* {name}: {value}")
        table = TextTable(["stage", "number", "seconds", "a second", "peak GB"], [])
        parts = {"a tenth": self.slices // 10, "all": self.slices}
        for part, slices in parts.items():
            for stage, command in self.stages(part.replace(" ", "_"), slices):
                table.rows.append(timed(f"{stage}, {part}", slices, command))
        self.write_scans()
        one = ["--workers", "1"]
        table.rows.append(timed("predict, one process", self.scans, self.predict("one", one)))
        with cluster(self.out, workers=2) as (address, workers):
            command = self.predict("two", ["--scheduler", address])
            killed = Killed(workers, self.out / "two", int(KILL_AFTER * self.scans))
            row = timed("predict, two dask workers, one killed", self.scans, command, killed)
        table.rows.append(row)
        print(f"\n{table.markdown()}")
        self.compare()

    def stages(self, part: str, slices: int) -> Iterator[tuple[str, list[str]]]:
        """The commands on some slices."""
        folder, data = self.out / part, self.out / f"{part}.data"
        made_up = {"size": self.size, "seed": self.seed}
        phantom(out=folder / "labelled", patients=10, first=100_000, slices=4, **made_up)
        patients = slices // PER_PATIENT
        unlabelled = {"patients": patients, "slices": PER_PATIENT, "masks": False}
        phantom(out=folder / "unlabelled", **unlabelled, **made_up)
        folders = [f"{folder}/labelled", f"{folder}/unlabelled"]
        prepare = ["prepare", *folders, "--size", str(self.size), "--lungs", "none"]
        yield "prepare", [*prepare, "--out", str(data)]
        yield "inspect", ["inspect", str(data)]
        train = ["train", str(data), "--out", str(self.out / f"{part}.run"), "--preset", "tiny"]
        train += ["--steps", str(slices // (BATCH - 4)), "--folds", "0", "--fast"]
        train += ["--labelled-per-batch", "4", "--unlabelled-per-batch", str(BATCH - 4)]
        yield "train, one epoch", [*train, "--seed", str(self.seed)]

    def write_scans(self) -> None:
        """Write phantoms in Hounsfield units as NIfTI volumes."""
        low, high = PHANTOM_WINDOW
        (self.out / "scans").mkdir()
        for number in range(self.scans):
            phantoms = phantom_slices([number], PER_SCAN, size=self.size, seed=self.seed + 1)
            hu = (phantoms.images.numpy() * (high - low) + low).astype(np.int16)
            scan = nib.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-5.0, -5.0, 5.0, 1.0]))
            nib.save(scan, self.out / "scans" / f"{number:04}.nii.gz")

    def predict(self, name: str, options: Sequence[str]) -> list[str]:
        """The command that segments the scans into a folder."""
        model = ["--model", str(self.out / "a_tenth.run" / "model.pt"), "--lungs", "none"]
        return ["predict", f"{self.out}/scans", *model, "--out", f"{self.out}/{name}", *options]

    def compare(self) -> None:
        """Check that no scan is lost and that both folders have the same segmentations."""
        for name in ("one", "two"):
            done = pd.read_csv(self.out / name / "scans.csv")
            assert len(done) == self.scans, f"{name}: {len(done)} of {self.scans} scans"
        pairs = [sorted((self.out / name).rglob("labels.nii.gz")) for name in ("one", "two")]
        assert len(pairs[0]) == len(pairs[1]) == self.scans
        for one, two in zip(*pairs, strict=True):
            assert (np.asanyarray(nib.load(one).dataobj) == nib.load(two).dataobj).all(), two
        print(f"All {self.scans} scans are there, with the same segmentations in both folders.")


@dataclass
class Killed:
    """Workers, the first of which is killed once some results are there.

    Attributes:
        workers: their processes.
        results: the folder of the results, with a subfolder for each.
        after: the number of results.
        done: whether it was killed.
    """

    workers: list[subprocess.Popen[bytes]]
    results: Path
    after: int
    done: bool = False

    def watch(self) -> None:
        """Kill it if it is time."""
        if not self.done and len(list(self.results.glob("*/labels.nii.gz"))) >= self.after:
            self.workers[0].send_signal(signal.SIGKILL)
            self.done = True


def timed(
    stage: str, number: int, command: Sequence[str], killed: Killed | None = None
) -> list[str]:
    """Run a command, and return its row; the memory is that of all its processes."""
    begun, peak = time.monotonic(), 0
    process = subprocess.Popen([sys.executable, "-m", "pyro_stitchnet", *command])
    while process.poll() is None:
        others = killed.workers if killed else []
        peak = max(peak, sum(memory(one.pid) for one in (process, *others)))
        if killed:
            killed.watch()
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    if process.returncode:
        raise SystemExit(f"{stage} failed")
    if killed and not killed.done:
        raise SystemExit(f"{stage}: no worker was killed")
    row = [stage, str(number), f"{seconds:.0f}", f"{number / seconds:.1f}", f"{peak / 1e9:.2f}"]
    print(" | ".join(row), flush=True)
    return row


def memory(pid: int) -> int:
    """The bytes in memory of a process and those that it started, without what they share."""
    total = 0
    with suppress(psutil.Error):  # they may end meanwhile
        main = psutil.Process(pid)
        for one in (main, *main.children(recursive=True)):
            with suppress(psutil.Error):
                total += one.memory_full_info().uss
    return total


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A dask scheduler on this machine, and its workers of one thread."""
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    options = ["--scheduler-file", str(file)]
    started = [subprocess.Popen([*dask, "scheduler", "--port", "0", *options])]
    try:
        while not (file.exists() and file.read_text().endswith("}")):
            if started[0].poll() is not None:
                raise SystemExit("the dask scheduler ended")
            time.sleep(0.1)
        alone = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        started += [subprocess.Popen([*dask, "worker", *alone, *options]) for _ in range(workers)]
        yield json.loads(file.read_text())["address"], started[1:]
    finally:
        for process in started:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    tyro.cli(Scale, description=__doc__).run()
