"""Callbacks: their order, their effects, and how patience and minutes end a run."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count, repeat
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from pyro_stitchnet.data.datasets.batches import Batch, TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.figures.tensorboard import TensorBoard
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import OptimiserConfig, preset
from pyro_stitchnet.training.callbacks import (
    Callback,
    HealthWarnings,
    LogFile,
    ProgressBar,
    ProgressLines,
    StateKeeper,
)
from pyro_stitchnet.training.learner import ElboLearner, Learner, LossOutput
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.step import Stepper

ADAM = OptimiserConfig(learning_rate=1e-3)
BATCH = Batch(torch.full((1, 8, 8), 0.5), torch.ones(0))


class Scale(Learner):
    """Four parameters of 3, whose sum times the mean grey value is the loss."""

    def __init__(self, scores: Iterator[float] | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((4,), 3.0))
        self.scores = scores or repeat(0.5)

    def loss(self, batch: Batch, step: int) -> LossOutput:
        return LossOutput(batch.x.mean() * self.weight.sum())

    def metrics(self, batch: Batch, output: LossOutput) -> Mapping[str, float]:
        return {"metric": 1.0}

    def validate(self, slices: Slices) -> tuple[float, dict[str, float]]:
        score = next(self.scores)
        return score, {"validation/dice": score}


def trained(
    slices: Slices,
    steps: int,
    *callbacks: Callback,
    learner: Learner | None = None,
    optimiser: OptimiserConfig = ADAM,
    **options: object,
) -> State:
    state = State(learner or Scale(), optimiser)
    settings = {"log_every": 1, "validate_every": 2, "keep_every": 1, **options}
    train(state, repeat(BATCH), steps, validation=slices, callbacks=callbacks, **settings)  # type: ignore[arg-type]
    return state


class Diary(Callback):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.rates: list[float] = []

    def begin(self, state: State, steps: int) -> None:
        self.events.append(f"begin {state.step} of {steps}")

    def step(self, state: State, loss: float) -> None:
        self.events.append(f"step {state.step}")
        self.rates.append(state.adam.param_groups[0]["lr"])

    def row(self, state: State, row: Mapping[str, float]) -> None:
        self.events.append("validated" if "validation/dice" in row else "row")

    def keep(self, state: State) -> None:
        self.events.append("keep")

    def end(self, state: State) -> None:
        self.events.append("end")


def test_callbacks_are_called_in_order(slices: Slices) -> None:
    diary = Diary()
    trained(slices, 3, diary, keep_every=2)
    assert diary.events == [
        "begin 0 of 3", "step 1", "row", "step 2", "validated", "keep", "step 3", "validated",
        "keep", "end",
    ]  # fmt: skip


def test_callbacks_change_nothing(slices: Slices, tmp_path: Path) -> None:
    tiny = preset("tiny")
    logs = []
    for callbacks in (
        (),
        (
            ProgressBar(),
            HealthWarnings(),
            StateKeeper(tmp_path / "states", {}),
            TensorBoard(tmp_path / "tensorboard"),
        ),
    ):
        torch.manual_seed(0)
        state = State(ElboLearner(StitchNet(tiny.model), tiny.objective), tiny.optimiser)
        batches = TwoStreams(slices, None, (2, 0)).batches()
        train(state, batches, 2, log_every=1, keep_every=1, callbacks=callbacks)
        logs.append(state.log)
    assert logs[0].equals(logs[1])


def test_the_last_states_are_kept_and_then_cleared(slices: Slices, tmp_path: Path) -> None:
    keeper = StateKeeper(tmp_path / "states", {}, last=2)
    trained(slices, 4, keeper)
    assert [path.name for path in keeper.kept()] == ["step-000000003.pt", "step-000000004.pt"]
    keeper.clear()
    assert not keeper.folder.exists()


def test_a_warning_is_printed_once_as_long_as_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    collapsed = {"mode_gap": 0.0, **{f"active/z{n}": float(n != 3) for n in range(1, 6)}}
    state, warning = State(Scale(), ADAM), HealthWarnings()
    for row in (collapsed, collapsed, {**collapsed, "active/z3": 1.0}, collapsed):
        state.rows = [row] * 10
        warning.row(state, row)
    assert capsys.readouterr().err.count("warning at step 0: z3 holds almost no information") == 2


def test_the_progress_bar_prints_validations(
    slices: Slices, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(slices, 4, ProgressBar(), learner=Scale(iter([0.25, 0.125])))
    lines = capsys.readouterr().err
    assert "step 2: validation dice 0.250, the best so far\n" in lines
    assert "step 4: validation dice 0.125\n" in lines


def test_patience_ends_a_run_that_gets_no_better(slices: Slices) -> None:
    learner, diary = Scale(iter([0.1, 0.5, 0.4, 0.3, 0.6])), Diary()
    state = trained(
        slices, 50, diary, learner=learner, validate_every=1, patience=2, keep_every=100
    )
    assert (state.step, state.best_step) == (4, 2)
    assert diary.events[-2:] == ["keep", "end"]


def test_minutes_end_a_run_and_lower_its_rate_in_time(
    slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=count(0, 60).__next__)
    monkeypatch.setattr("pyro_stitchnet.training.loop.time", clock)
    diary, optimiser = Diary(), replace(ADAM, decay="cosine")
    state = trained(slices, 1000, diary, optimiser=optimiser, validate_every=500, minutes=5)
    assert state.step == 5  # a minute each
    assert "validation/dice" in state.log  # as at the end of any run
    assert diary.events[-2:] == ["keep", "end"]
    assert diary.rates == sorted(diary.rates, reverse=True)
    assert diary.rates[-1] < ADAM.learning_rate / 100


def test_minutes_of_a_resumed_run_go_on(
    slices: Slices, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So the learning rate goes on falling."""
    optimiser, diary = replace(ADAM, decay="cosine"), Diary()
    clocks = (count(0, 60), count(9999, 60))  # one per process
    times = [SimpleNamespace(monotonic=clock.__next__) for clock in clocks]
    monkeypatch.setattr("pyro_stitchnet.training.loop.time", times[0])
    trained(slices, 1000, optimiser=optimiser, minutes=3).save(tmp_path / "state.pt", {})
    state = State(Scale(), optimiser)
    state.load(tmp_path / "state.pt", {})
    monkeypatch.setattr("pyro_stitchnet.training.loop.time", times[1])
    train(state, repeat(BATCH), 1000, callbacks=[diary], minutes=8)
    assert state.step == 8  # three minutes before and five after
    assert diary.rates == sorted(diary.rates, reverse=True)
    assert diary.rates[0] < 0.7 * ADAM.learning_rate


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_minutes_must_be_above_0(slices: Slices, minutes: float) -> None:
    with pytest.raises(ValueError, match="minutes must be above 0"):
        trained(slices, 5, minutes=minutes)


def test_fast_logs_only_the_loss_and_validates_at_the_end(slices: Slices) -> None:
    assert "metric" in trained(slices, 1).log
    log = trained(slices, 4, fast=True).log
    assert log["validation/dice"].notna().tolist() == [False, False, False, True]
    assert set(log) == {"step", "loss", "gradient_norm", "validation/dice"}


def test_accumulated_batches_make_the_step_of_their_mean() -> None:
    batches = [Batch(torch.full((1, 8, 8), grey), torch.ones(0)) for grey in (0.1, 0.3)]
    mean, norm, output = Stepper(State(Scale(), ADAM))(batches)
    assert mean == pytest.approx(0.2 * 12)
    assert norm == pytest.approx(0.2 * 4**0.5)
    assert float(output.loss.detach()) == pytest.approx(0.3 * 12)  # of the last batch


class Reader(Callback):
    """Reads the log after every row."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables: list[pd.DataFrame] = []

    def row(self, state: State, row: Mapping[str, float]) -> None:
        self.tables.append(pd.read_csv(self.path))


def test_the_log_on_disk_grows_row_by_row(slices: Slices, tmp_path: Path) -> None:
    """The second row has a column that the first has not, the third lacks it."""
    path = tmp_path / "log.csv"
    path.write_text("of a run that was killed before its first state")
    reader = Reader(path)
    state = trained(slices, 5, LogFile(path), reader)
    assert [len(table) for table in reader.tables] == [1, 2, 3, 4, 5]
    pd.testing.assert_frame_equal(reader.tables[-1], state.log)
    assert list(reader.tables[-1]["validation/dice"].isna()) == [True, False, True, False, False]


def test_the_log_of_a_resumed_run_has_no_row_twice(slices: Slices, tmp_path: Path) -> None:
    """Rows after the last state are made again."""
    state = trained(slices, 4, LogFile(tmp_path / "log.csv"))
    del state.rows[2:]
    state.step = 2
    train(state, repeat(BATCH), 5, log_every=1, callbacks=[LogFile(tmp_path / "log.csv")])
    assert list(pd.read_csv(tmp_path / "log.csv")["step"]) == [1, 2, 3, 4, 5]


def test_without_a_terminal_each_row_is_a_line(
    slices: Slices, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(slices, 4, ProgressLines(), log_every=3)
    first, second, third, fourth = capsys.readouterr().err.splitlines()
    assert first.startswith("step 1 of 4: loss 6.000, ")
    assert second.startswith("step 2 of 4: loss 5.998, validation dice 0.500, the best so far, ")
    assert third.startswith("step 3 of 4: loss 5.996, ")
    assert fourth.endswith(" steps/s, 0:00:00 left")
