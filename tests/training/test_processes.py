"""Several training processes train as one process does with all their slices."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch

from pyro_stitchnet.runtime.distributed import all_mean, own_rows, processes

OWN = [sys.executable, "-m", "pyro_stitchnet"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


def start(
    data: Path, out: Path, *more: str, launcher: Sequence[str] = OWN
) -> subprocess.Popen[str]:
    options = {
        "out": out, "preset": "tiny", "steps": 4, "log-every": 1, "validate-every": 2, "ema": 0.5,
        "learning-rate": 1e-3,  # Adam amplifies the differences of rounding
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return subprocess.Popen(
        [*launcher, "train", str(data), *words, *more, "--no-progress", "--no-tensorboard"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip


def per_batch(slices: int) -> tuple[str, ...]:
    return "--labelled-per-batch", str(slices), "--unlabelled-per-batch", str(slices)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(dataset: Path, tmp_path: Path) -> None:
    """With Fabric's launcher and with torchrun: batches, draws, gradients and averages."""
    torchrun = [*TORCHRUN, "-m", "pyro_stitchnet"]
    runs = {
        tmp_path / "one": start(dataset, tmp_path / "one", *per_batch(2)),
        tmp_path / "two": start(dataset, tmp_path / "two", *per_batch(1), "--processes", "2"),
        tmp_path / "run": start(dataset, tmp_path / "run", *per_batch(1), launcher=torchrun),
    }
    for process in runs.values():
        output, errors = process.communicate()
        assert process.returncode == 0, output + errors
        assert output.count("slices: ") == 1, "only one process prints"
    one, *several = (pd.read_csv(out / "log.csv") for out in runs)
    for other in several:
        first, later = one["loss"][0], one["loss"][1:].to_numpy()
        assert other["loss"][0] == pytest.approx(first, rel=1e-4)
        assert other["loss"][1:].to_numpy() == pytest.approx(later, rel=1e-2)


@pytest.mark.slow
def test_batch_norm_free_bits_and_draws_are_those_of_the_whole_batch() -> None:
    script = str(Path(__file__).with_name("loss_of_a_batch.py"))

    def results(launcher: Sequence[str]) -> dict[str, float]:
        run = subprocess.run([*launcher, script], capture_output=True, text=True, env=ENVIRONMENT)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    one, two = results([sys.executable]), results(TORCHRUN)
    assert two == pytest.approx(one, rel=1e-5)


def test_one_process_needs_no_process_group() -> None:
    t = torch.tensor([1.0, 2.0])
    assert processes() == 1
    assert all_mean(t) is t
    assert own_rows(5) == slice(0, 5, 1)
