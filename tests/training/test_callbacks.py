"""What watches a run is told all of it, and changes nothing."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pyro_stitchnet.data.datasets.batches import Batch, TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.figures.tensorboard import TensorBoard
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import OptimiserConfig, preset
from pyro_stitchnet.training.callbacks import Alarms, Callback, ProgressBar, StateKeeper
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.step import Stepper

TINY = preset("tiny")


@pytest.fixture(scope="module")
def slices() -> Slices:
    return phantom_slices([0, 1, 2], 2, size=64)


def trained(
    slices: Slices,
    steps: int,
    *callbacks: Callback,
    optimiser: OptimiserConfig = TINY.optimiser,
    **options: object,
) -> State:
    torch.manual_seed(0)
    state = State(ElboLearner(StitchNet(TINY.model), TINY.objective), optimiser)
    settings = {"log_every": 1, "validate_every": 2, "keep_every": 1, **options}
    train(
        state,
        TwoStreams(slices, None, (2, 0)).batches(),
        steps,
        validation=slices.take([0, 1]),
        callbacks=callbacks,
        **settings,  # type: ignore[arg-type]
    )
    return state


class Diary(Callback):
    def __init__(self) -> None:
        self.events: list[str] = []

    def begin(self, state: State, steps: int) -> None:
        self.events.append(f"begin {state.step} of {steps}")

    def step(self, state: State, loss: float) -> None:
        self.events.append(f"step {state.step}")

    def row(self, state: State, row: Mapping[str, float]) -> None:
        self.events.append("validated" if "validation/dice" in row else "row")

    def keep(self, state: State) -> None:
        self.events.append("keep")

    def end(self, state: State) -> None:
        self.events.append("end")


def test_callbacks_are_told_in_order(slices: Slices) -> None:
    diary = Diary()
    trained(slices, 3, diary, keep_every=2)
    assert diary.events == [
        "begin 0 of 3", "step 1", "row", "step 2", "validated", "keep", "step 3", "validated",
        "keep", "end",
    ]  # fmt: skip


def test_callbacks_change_nothing(slices: Slices, tmp_path: Path) -> None:
    watched = trained(
        slices, 3, ProgressBar(), Alarms(), StateKeeper(tmp_path / "states", {}),
        TensorBoard(tmp_path / "tensorboard", slices.take([0])),
    )  # fmt: skip
    assert watched.log.equals(trained(slices, 3).log)


def test_the_last_states_are_kept_and_then_cleared(slices: Slices, tmp_path: Path) -> None:
    keeper = StateKeeper(tmp_path / "states", {}, last=2)
    trained(slices, 4, keeper)
    assert [path.name for path in keeper.kept()] == ["step-000000003.pt", "step-000000004.pt"]
    keeper.clear()
    assert not keeper.folder.exists()


def test_an_alarm_is_said_once_as_long_as_it_stands(
    slices: Slices, capsys: pytest.CaptureFixture[str]
) -> None:
    ill = {"elbo/kl": 0.0, **{f"kl/z{n}": float(n != 3) for n in range(1, 6)}}
    state, alarm = trained(slices, 1), Alarms()
    state.rows = [ill] * 10
    for _ in range(2):
        alarm.row(state, ill)
    state.rows = [{**ill, "kl/z3": 1.0}] * 10
    alarm.row(state, ill)
    state.rows = [ill] * 10
    alarm.row(state, ill)
    assert capsys.readouterr().err.count("alarm at step 1: z3 says almost nothing") == 2


def test_patience_ends_a_run_that_gets_no_better(
    slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.6])
    names = ("validation/dice", "validation/dice_ggo", "validation/dice_consolidation")
    monkeypatch.setattr(
        "pyro_stitchnet.training.loop.validate",
        lambda *_: dict.fromkeys(names, next(scores)),
    )
    diary = Diary()
    state = trained(slices, 50, diary, validate_every=1, patience=2, keep_every=100)
    assert (state.step, state.best_step) == (4, 2)
    assert diary.events[-2:] == ["keep", "end"]


def test_minutes_end_a_run_and_lower_its_rate_in_time(
    slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=count(0, 60).__next__)
    monkeypatch.setattr("pyro_stitchnet.training.loop.time", clock)
    rates: list[float] = []

    class Rates(Diary):
        def step(self, state: State, loss: float) -> None:
            rates.append(state.adam.param_groups[0]["lr"])

    diary = Rates()
    optimiser = replace(TINY.optimiser, warmup=0, decay="cosine")
    state = trained(slices, 1000, diary, optimiser=optimiser, validate_every=500, minutes=5)
    assert state.step == 5  # a minute each
    assert "validation/dice" in state.log  # as at the end of any run
    assert diary.events[-2:] == ["keep", "end"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < TINY.optimiser.learning_rate / 100


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_minutes_must_be_some(slices: Slices, minutes: float) -> None:
    with pytest.raises(ValueError, match="minutes must be above 0"):
        trained(slices, 5, minutes=minutes)


def test_fast_logs_the_loss_alone_and_validates_at_the_end(slices: Slices) -> None:
    log = trained(slices, 4, fast=True).log
    assert log["validation/dice"].notna().tolist() == [False, False, False, True]
    assert not [name for name in log if name.startswith(("kl/", "style_gap/"))]


def test_accumulated_batches_make_the_step_of_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(net: StitchNet, x: torch.Tensor, *_: object) -> torch.Tensor:
        return x.mean() * sum(p.sum() for p in net.parameters())

    monkeypatch.setattr("pyro_stitchnet.training.learner.negative_elbo", loss)
    torch.manual_seed(0)
    state = State(ElboLearner(StitchNet(TINY.model), TINY.objective), TINY.optimiser)
    before = sum(float(p.sum()) for p in state.learner.parameters())
    entries = sum(p.numel() for p in state.learner.parameters())
    greys = 0.1, 0.3
    batches = [Batch(torch.full((1, 64, 64), grey), torch.ones(0)) for grey in greys]
    mean, norm = Stepper(state)(batches)
    assert mean == pytest.approx(0.2 * before, rel=1e-3)
    assert norm == pytest.approx(0.2 * entries**0.5, rel=1e-3)
