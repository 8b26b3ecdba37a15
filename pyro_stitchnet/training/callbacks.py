"""What observes a run: progress, warnings, and the log and the states on disk."""

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.runtime.files import naming, write_atomically
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.health import health_warnings
from pyro_stitchnet.training.state import State

__all__ = [
    "Callback",
    "HealthWarnings",
    "LogFile",
    "ProgressBar",
    "ProgressLines",
    "Run",
    "StateKeeper",
]


@dataclass(frozen=True)
class Run:
    """A training run from a dataset to a folder.

    Attributes:
        config: its configuration; results are in ``config.out``.
        net: the model.
        slices: the slices of "labelled", "unlabelled", "validation" and "test", on disk.
        record: the content of ``run.json``.
    """

    config: TrainConfig
    net: StitchNet | SliceVAE
    slices: Mapping[str, Dataset]
    record: dict[str, Any]


class Callback:
    """Methods that the first process of a run calls; all do nothing by default."""

    def start(self, run: Run) -> None:
        """Called once the data are split, before training; not in a training without a folder."""

    def begin(self, state: State, steps: int) -> None:
        """Called when training begins or resumes; it will have ``steps`` steps."""

    def step(self, state: State, loss: float) -> None:
        """Called after each step."""

    def row(self, state: State, row: Mapping[str, float]) -> None:
        """Called when the log has a new row."""

    def keep(self, state: State) -> None:
        """Called when the state should be saved."""

    def end(self, state: State) -> None:
        """Called when training ends, also after an error."""

    def finish(self, run: Run, state: State) -> None:
        """Called after training with the best weights, before ``model.pt`` is written."""


class ProgressBar(Callback):
    """The current step, its rate and the time left; above it, one line per validation."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
        )

    def begin(self, state: State, steps: int) -> None:
        """Show the bar."""
        self._bar.start()
        self._task = self._bar.add_task(
            "training", total=steps, completed=state.step, status="", rate=""
        )

    def step(self, state: State, loss: float) -> None:
        """Move it."""
        self._bar.advance(self._task)
        speed = self._bar.tasks[0].speed
        self._bar.update(
            self._task,
            status=f"loss {loss:.3f}",
            rate=f"{speed:.2f} steps/s" if speed else "",
        )

    def row(self, state: State, row: Mapping[str, float]) -> None:
        """Print the metrics of a validation."""
        if validation := _validation(state, row):
            self._bar.console.print(f"step {state.step}: {validation}")

    def end(self, state: State) -> None:
        """Stop the bar."""
        self._bar.stop()


class ProgressLines(Callback):
    """A line on standard error for each row of the log, where there is no terminal for a bar."""

    def begin(self, state: State, steps: int) -> None:
        """Start the clock."""
        self._steps, self._first, self._begun = steps, state.step, time.monotonic()

    def step(self, state: State, loss: float) -> None:
        """Remember the loss."""
        self._loss = loss

    def row(self, state: State, row: Mapping[str, float]) -> None:
        """Print the line."""
        seconds = (time.monotonic() - self._begun) / (state.step - self._first)
        left = timedelta(seconds=round((self._steps - state.step) * seconds))
        parts = [
            f"step {state.step} of {self._steps}: loss {self._loss:.3f}",
            _validation(state, row),
            f"{1 / seconds:.2f} steps/s",
            f"{left} left",
        ]
        print(", ".join(filter(None, parts)), file=sys.stderr, flush=True)


class LogFile(Callback):
    """Writes each row of the log to a CSV file at once.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []

    def begin(self, state: State, steps: int) -> None:
        """Write the rows up to the resumed step; later ones will be made again."""
        self._write(state)

    def row(self, state: State, row: Mapping[str, float]) -> None:
        """Append the row; one with a new metric makes a new column of the whole file."""
        if not state.rows[-1].keys() <= set(self._columns):
            self._write(state)
            return
        line = pd.DataFrame([state.rows[-1]], columns=self._columns)
        with naming(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(line.to_csv(index=False, header=False))

    def finish(self, run: Run, state: State) -> None:
        """Write the whole file."""
        self._write(state)

    def _write(self, state: State) -> None:
        self._columns = list(state.log)
        write_atomically(self.path, state.log.to_csv(index=False) if state.rows else "")


class HealthWarnings(Callback):
    """Prints the warnings of a run to standard error, each when it begins."""

    def __init__(self) -> None:
        self._active: set[str] = set()

    def row(self, state: State, row: Mapping[str, float]) -> None:
        """Check the last rows."""
        current = health_warnings(state.rows)
        for name in current.keys() - self._active:
            print(f"warning at step {state.step}: {current[name]}", file=sys.stderr)
        self._active = set(current)


class StateKeeper(Callback):
    """Saves the last states of a run.

    Args:
        folder: of the states; created with the first one.
        config: plain data that the run depends on.
        last: how many to keep.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], last: int = 1) -> None:
        self.folder, self.config, self.last = folder, config, last

    def kept(self) -> list[Path]:
        """The saved states, the oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def keep(self, state: State) -> None:
        """Save the state, then delete those that are too old."""
        self.folder.mkdir(exist_ok=True)
        state.save(self.folder / f"step-{state.step:09d}.pt", self.config)
        for old in self.kept()[: -self.last]:
            old.unlink()

    def clear(self) -> None:
        """Delete all states, and what a kill left of one: the run is finished."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)


def _validation(state: State, row: Mapping[str, float]) -> str:
    """The metrics of a validation in words; empty for a row without one."""
    prefix = "validation/"
    values = [
        f"{name.removeprefix(prefix).replace('_', ' ')} {value:.3f}"
        for name, value in row.items()
        if name.startswith(prefix)
    ]
    if not values:
        return ""
    best = ", the best so far" if state.best_step == state.step else ""
    return f"validation {', '.join(values)}{best}"
