"""A run that was stopped or killed and resumed ends with the bits of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pyro_stitchnet.data.datasets.batches import TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.model.label_terms import Guided
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.presets import Preset, preset
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.callbacks import StateKeeper
from pyro_stitchnet.training.config import TrainConfig, to_yaml
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.run import learner_of, run
from pyro_stitchnet.training.state import State, check_same_run

TINY = preset("tiny")
SVAE = replace(preset("svae"), model=replace(preset("tiny-logistic").model, stitched=False))
SELF_TRAINED = replace(
    preset("guided"), objective=Objective(Guided(guide_weight=0, consistency_weight=1))
)
STEPS = 8

SameState = Callable[[nn.Module, nn.Module], bool]


def new_state(chosen: Preset = TINY, **settings: Any) -> State:
    torch.manual_seed(0)
    learner = learner_of(checkpoint.build(chosen.model), chosen.objective)
    return State(learner, replace(chosen.optimiser, **settings))


@pytest.fixture(scope="module")
def state() -> State:
    """For tests that do not change it."""
    return new_state()


def go_on(state: State, slices: Slices, steps: int) -> None:
    strong_views = state.learner.strong_views
    streams = TwoStreams(slices, slices, (1, 1), strong_views=strong_views)
    train(
        state,
        streams.batches(first=state.step),
        steps,
        validation=slices.take([0, 1]),
        log_every=2,
        validate_every=2,
    )


# --- In one process -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "settings"),
    [
        (TINY, {"ema": 0.5, "warmup": 2, "decay": "cosine"}),
        (SELF_TRAINED, {}),
        (SVAE, {}),
    ],
    ids=["averaged", "self-training", "svae"],
)
def test_a_saved_state_is_all_that_the_next_step_needs(
    chosen: Preset,
    settings: dict[str, Any],
    slices: Slices,
    tmp_path: Path,
    same_state: SameState,
) -> None:
    whole = new_state(chosen, **settings)
    go_on(whole, slices, 4)

    first = new_state(chosen, **settings)
    strong_views = first.learner.strong_views
    batches = TwoStreams(slices, slices, (1, 1), strong_views=strong_views).batches()
    with pytest.raises(StopIteration):  # the run breaks off after a step that is not saved
        train(
            first,
            islice(batches, 3),
            4,
            validation=slices.take([0, 1]),
            log_every=2,
            validate_every=2,
            callbacks=[StateKeeper(tmp_path, {"seed": 0})],
            keep_every=2,
        )
    resumed = new_state(chosen, **settings)
    torch.manual_seed(99)  # the saved random state replaces this one
    resumed.load(tmp_path / "step-000000002.pt", {"seed": 0})
    assert resumed.step == 2
    go_on(resumed, slices, 4)
    assert resumed.log.equals(whole.log)
    assert same_state(resumed.learner, whole.learner)
    assert resumed.best_step == whole.best_step
    assert resumed.resumed == [2]


def test_another_configuration_is_refused_with_the_differences(
    state: State, tmp_path: Path
) -> None:
    path = tmp_path / "state.pt"
    state.save(path, {"seed": 0, "fold": 1, "preset": "tiny"})
    message = r"state\.pt: the options differ from those of the run: fold was 1 and is 2; new was "
    with pytest.raises(ValueError, match=message):
        state.load(path, {"seed": 0, "fold": 2, "preset": "tiny", "new": 3})


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_state_is_refused(share: float, state: State, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    state.save(path, {})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"state\.pt: damaged"):
        state.load(path, {})
    with pytest.raises(ValueError, match=r"state\.pt: damaged.*, or delete it: --resume then"):
        check_same_run(path, {})


def test_a_model_is_not_a_state(state: State, tmp_path: Path) -> None:
    checkpoint.save(checkpoint.build(TINY.model), tmp_path / "model.pt")
    message = r"model\.pt: not a stitchnet checkpoint of format 'state 6'"
    with pytest.raises(ValueError, match=message):
        state.load(tmp_path / "model.pt", {})


# --- In processes that end ------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from pyro_stitchnet.training.config import from_yaml
from pyro_stitchnet.training.run import run
run(from_yaml(Path(sys.argv[1])))
"""


def config_of(data: Path, out: Path, **options: Any) -> TrainConfig:
    settings = {
        "steps": STEPS, "labelled_per_batch": 1, "unlabelled_per_batch": 1, "log_every": 1,
        "validate_every": 3, "keep_every": 1, "device": "cpu", "progress": False,
    }  # fmt: skip
    return TrainConfig(data, out, **vars(TINY), **{**settings, **options})


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        start_new_session=True,
    )


def start_run(config: TrainConfig, folder: Path, *, resume: bool = False) -> subprocess.Popen[str]:
    path = folder / f"{config.out.name}.yaml"
    path.write_text(to_yaml(config) + f"resume: {str(resume).lower()}\n", encoding="utf-8")
    return start(["-c", PROGRAM, str(path)])


def newest(states: Path) -> str:
    return max((path.name for path in states.glob("*.pt")), default="")


def wait_for_change(states: Path, process: subprocess.Popen[str], before: str) -> None:
    """Wait until the run has saved a newer state."""
    while newest(states) <= before:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_runs_end_bit_identical(
    dataset: Path, tmp_path: Path, same_state: SameState
) -> None:
    never, killed = tmp_path / "never", tmp_path / "killed"
    undisturbed = start_run(config_of(dataset, never), tmp_path)
    states, random_time = killed / "states", random.Random(0)
    for attempt in range(3):
        before = newest(states)
        process = start_run(config_of(dataset, killed), tmp_path, resume=attempt > 0)
        wait_for_change(states, process, before)
        # Between steps, within one, or while a state is written.
        time.sleep(random_time.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (killed / "model.pt").exists()
    last = start_run(config_of(dataset, killed), tmp_path, resume=True)
    for process in (undisturbed, last):
        output, errors = process.communicate()
        assert process.returncode == 0, output + errors
    one, info = checkpoint.load(never / "model.pt")
    other, resumed = checkpoint.load(killed / "model.pt")
    assert same_state(one, other)
    assert (never / "log.csv").read_bytes() == (killed / "log.csv").read_bytes()
    assert info["best_step"] == resumed["best_step"]
    assert info["resumed_at_steps"] == []
    assert len(resumed["resumed_at_steps"]) == 3
    assert not states.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_saves_and_prints_how_to_continue(
    dataset: Path, tmp_path: Path, number: signal.Signals
) -> None:
    config = config_of(
        dataset, tmp_path / "run", steps=100_000, keep_every=100_000, validate_every=1, workers=1,
        tensorboard=False, progress=True,
    )  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    process = start(["-m", "pyro_stitchnet", "train", "--config", str(path)])
    assert process.stderr is not None
    assert any(line.startswith("step 1 of 100000: loss") for line in process.stderr)
    os.killpg(process.pid, number)  # as a terminal and a scheduler do: to the workers too
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert newest(config.out / "states")
    assert "run the same command with --resume to continue" in errors
    assert "Traceback" not in errors
    with pytest.raises(FileExistsError, match="unfinished run; continue it with --resume"):
        run(config)
