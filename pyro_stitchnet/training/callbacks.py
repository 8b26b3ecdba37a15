"""What watches a run: the progress bar, alarms, and the keeper of its states."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pyro_stitchnet.training.health import alarms
from pyro_stitchnet.training.state import State

__all__ = ["Alarms", "Callback", "ProgressBar", "StateKeeper"]


class Callback:
    """Is told what happens in the first process of a run; each method may be left out."""

    def begin(self, state: State, steps: int) -> None:
        """The run begins, or goes on, and will be ``steps`` long."""

    def step(self, state: State, loss: float) -> None:
        """A step was made."""

    def row(self, state: State, row: Mapping[str, float]) -> None:
        """The log has a new row."""

    def keep(self, state: State) -> None:
        """The state is to be kept."""

    def end(self, state: State) -> None:
        """The run ends, for whatever reason."""


class ProgressBar(Callback):
    """The step under way, its rate and the time left; above it, a line a validation."""

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
        """Say what a validation found."""
        if "validation/dice" in row:
            best = ", the best so far" if state.best_step == state.step else ""
            self._bar.console.print(
                f"step {state.step}: validation Dice GGO {row['validation/dice_ggo']:.3f}, "
                f"consolidation {row['validation/dice_consolidation']:.3f}{best}"
            )

    def end(self, state: State) -> None:
        """Leave it as it stands."""
        self._bar.stop()


class Alarms(Callback):
    """Says on standard error when something looks unhealthy, once for each time that it begins."""

    def __init__(self) -> None:
        self._standing: set[str] = set()

    def row(self, state: State, row: Mapping[str, float]) -> None:
        """Look at the last rows."""
        now = alarms(state.rows)
        for name in now.keys() - self._standing:
            print(f"alarm at step {state.step}: {now[name]}", file=sys.stderr)
        self._standing = set(now)


class StateKeeper(Callback):
    """Keeps the last states of a run on disk.

    Args:
        folder: for them; made when the first is kept.
        config: plain data that the run depends on.
        last: how many to keep.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], last: int = 1) -> None:
        self.folder, self.config, self.last = folder, config, last

    def kept(self) -> list[Path]:
        """The states there are, from the oldest."""
        return sorted(self.folder.glob("step-*.pt"))

    def keep(self, state: State) -> None:
        """Keep it, then drop those that are too old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state.save(self.folder / f"step-{state.step:09d}.pt", self.config)
        for old in self.kept()[: -self.last]:
            old.unlink()

    def clear(self) -> None:
        """Drop them all: the run is finished."""
        for path in self.kept():
            path.unlink()
        if self.folder.is_dir():
            self.folder.rmdir()
