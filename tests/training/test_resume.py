"""A run that was stopped, or killed, ends as one that never was."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import Slices, write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.callbacks import StateKeeper
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.run import run
from pyro_stitchnet.training.state import State

TINY = preset("tiny")
STEPS = 8


@pytest.fixture(scope="module")
def slices() -> Slices:
    return phantom_slices([0, 1, 2], 2, size=64)


def new_state(**settings: Any) -> State:
    torch.manual_seed(0)
    learner = ElboLearner(StitchNet(TINY.model), TINY.objective)
    return State(learner, replace(TINY.optimiser, **settings))


def go_on(state: State, slices: Slices, steps: int) -> None:
    batches = TwoStreams(slices, slices, (1, 1)).batches(first=state.step)
    train(
        state,
        batches,
        steps,
        validation=slices.take([0, 1]),
        log_every=2,
        validate_every=2,
    )


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# --- In one process -------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"ema": 0.5, "warmup": 2, "decay": "cosine"}])
def test_what_is_kept_is_all_that_the_next_step_needs(
    slices: Slices, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = new_state(**settings)
    go_on(whole, slices, 5)

    first = new_state(**settings)
    with pytest.raises(StopIteration):  # in the midst of the run
        train(
            first,
            islice(TwoStreams(slices, slices, (1, 1)).batches(), 3),
            5,
            validation=slices.take([0, 1]),
            log_every=2,
            validate_every=2,
            callbacks=[StateKeeper(tmp_path, {"seed": 0})],
            keep_every=2,
        )
    resumed = new_state(**settings)
    torch.manual_seed(99)  # the kept random state must count
    resumed.load(tmp_path / "step-000000002.pt", {"seed": 0})
    assert resumed.step == 2
    go_on(resumed, slices, 5)
    assert resumed.log.equals(whole.log)
    assert same_weights(resumed.learner, whole.learner)
    assert resumed.best_step == whole.best_step
    assert resumed.resumed == [2]


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    state = new_state()
    state.save(tmp_path / "state.pt", {"seed": 0, "fold": 1, "preset": "tiny"})
    with pytest.raises(
        ValueError, match=r"state\.pt: is of another run: fold was 1 and is 2; new "
    ):
        state.load(tmp_path / "state.pt", {"seed": 0, "fold": 2, "preset": "tiny", "new": 3})


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_truncated_state_is_refused(part: float, tmp_path: Path) -> None:
    state, path = new_state(), tmp_path / "state.pt"
    state.save(path, {})
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"state\.pt: damaged"):
        state.load(path, {})


def test_a_model_is_no_state(tmp_path: Path) -> None:
    state = new_state()
    checkpoint.save(StitchNet(TINY.model), tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match=r"model\.pt: not a stitchnet checkpoint of format 'state 4'"
    ):
        state.load(tmp_path / "model.pt", {})


# --- Killed for real ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_folder(phantom_slices(range(10), 1, size=64), folder / "slices")
    steps = Preprocessing(size=64, lungs="none")
    return prepare(
        [str(folder / "slices")], folder / "dataset", preprocessing=steps, progress=False
    ).folder


def command(dataset: Path, out: Path) -> list[str]:
    options = {
        "out": out, "preset": "tiny", "steps": STEPS, "labelled-per-batch": 2, "log-every": 1,
        "validate-every": 3, "keep-every": 1,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    program = "from pyro_stitchnet.cli import main; main()"
    return [sys.executable, "-c", program, "train", str(dataset), *words, "--no-progress"]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def newest(states: Path) -> str:
    return max((path.name for path in states.glob("*.pt")), default="")


def wait_for_change(states: Path, process: subprocess.Popen[str], before: str) -> None:
    """Until the run has kept a newer state."""
    while newest(states) <= before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_runs_end_bit_identical(dataset: Path, tmp_path: Path) -> None:
    never, killed = tmp_path / "never", tmp_path / "killed"
    undisturbed = start(command(dataset, never))
    kept, when = killed / "states", random.Random(0)
    extra: list[str] = []
    for _ in range(3):
        before = newest(kept)
        process = start([*command(dataset, killed), *extra])
        wait_for_change(kept, process, before)
        time.sleep(when.uniform(0, 0.3))  # between steps, within one, or while a state is written
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (killed / "model.pt").exists()
        extra = ["--resume"]
    last = start([*command(dataset, killed), "--resume"])
    for process in (undisturbed, last):
        output, errors = process.communicate()
        assert process.returncode == 0, output + errors
    one, about = checkpoint.load(never / "model.pt")
    other, resumed = checkpoint.load(killed / "model.pt")
    assert same_weights(one, other)
    assert (never / "log.csv").read_bytes() == (killed / "log.csv").read_bytes()
    assert (never / "test/table.csv").read_bytes() == (killed / "test/table.csv").read_bytes()
    assert about["resumed_at_steps"] == []
    assert len(resumed["resumed_at_steps"]) == 3
    assert not kept.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_saved_and_says_how_to_go_on(
    dataset: Path, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = [*command(dataset, tmp_path / "run"), "--keep-every", "1000", "--workers", "1"]
    arguments[arguments.index("--steps") + 1] = "100000"
    process = start(arguments)
    while not (tmp_path / "run" / "split.csv").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1)  # training has begun
    os.killpg(process.pid, number)  # as a terminal and a scheduler do: the workers get it too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume goes on" in errors
    assert "Traceback" not in errors
    config = TrainConfig(
        data=dataset, out=tmp_path / "run", **vars(TINY), steps=100000, labelled_per_batch=2,
        log_every=1, validate_every=3,
    )  # fmt: skip
    with pytest.raises(FileExistsError, match="unfinished run; go on with it by --resume"):
        run(config)


def test_nothing_to_go_on_with(dataset: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=dataset, out=tmp_path / "run", resume=True)
    with pytest.raises(FileNotFoundError, match="states: no state of a run to go on with"):
        run(config)
    assert not config.out.exists()
