"""The loop: repeats itself, survives bad steps, validates, and agrees with pyro.infer.SVI."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch

from examples import train_svi
from pyro_stitchnet.data.datasets.batches import Batch, TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import OptimiserConfig, Preset, preset
from pyro_stitchnet.training.checkpoint import build
from pyro_stitchnet.training.diagnostics import diagnose
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.run import learner_of
from pyro_stitchnet.training.state import State

TINY = preset("tiny")
SVAE = replace(preset("svae"), model=replace(preset("tiny-logistic").model, stitched=False))


def new_net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(TINY.model)


def run(
    net: StitchNet,
    batches: Iterator[Batch],
    steps: int,
    optimiser: OptimiserConfig = TINY.optimiser,
    objective: Objective = TINY.objective,
    **options: object,
) -> State:
    torch.manual_seed(1)
    settings = {"log_every": 1, **options}
    state = State(ElboLearner(net, objective), optimiser)
    train(state, batches, steps, **settings)  # type: ignore[arg-type]
    return state


def mixed(slices: Slices) -> Iterator[Batch]:
    return TwoStreams(slices, slices, (2, 2)).batches()


def test_the_same_seed_gives_the_same_run(slices: Slices) -> None:
    logs = [run(new_net(), mixed(slices), 3).log for _ in range(2)]
    assert logs[0].equals(logs[1])


def test_logging_and_validating_do_not_change_the_run(slices: Slices) -> None:
    seldom, often = (
        run(
            new_net(),
            mixed(slices),
            4,
            log_every=every,
            validate_every=every,
            validation=slices.take([0, 1]),
        )
        .log["loss"]
        .iloc[-1]
        for every in (4, 1)
    )
    assert seldom == often


@pytest.mark.parametrize("chosen", [TINY, preset("guided"), SVAE], ids=["tiny", "guided", "svae"])
def test_a_logged_step_makes_no_more_forward_passes(chosen: Preset, slices: Slices) -> None:
    learner = learner_of(build(chosen.model), chosen.objective)
    calls: Counter[str] = Counter()
    for name, module in learner.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    before: list[Counter[str]] = []

    def batches() -> Iterator[Batch]:
        stream = TwoStreams(slices, slices, (1, 1), strong_views=learner.strong_views)
        for batch in stream.batches():
            before.append(calls.copy())
            yield batch

    state = State(learner, replace(chosen.optimiser, ema=0))
    train(state, batches(), 4, log_every=3)
    assert [row["step"] for row in state.rows] == [1, 3, 4]
    assert all("elbo/kl" in row for row in state.rows)
    steps = [after - earlier for earlier, after in zip(before, [*before[1:], calls], strict=True)]
    logged, unlogged = steps[2], steps[1]
    assert unlogged.total() > 100
    assert logged == unlogged


@pytest.mark.filterwarnings("ignore:.*was not registered in the param store:UserWarning")
def test_svi_and_the_loop_reach_the_same_loss(slices: Slices) -> None:
    """examples/train_svi.py and the library: same seed, same losses, step by step."""
    optimiser = OptimiserConfig()

    def streams() -> tuple[Iterator[Batch], Iterator[Batch]]:
        labelled, unlabelled = TwoStreams(slices, None, (2, 0)), TwoStreams(None, slices, (0, 2))
        return labelled.batches(), unlabelled.batches()

    def alternating() -> Iterator[Batch]:
        for pair in zip(*streams(), strict=True):
            yield from pair

    net = new_net()
    torch.manual_seed(1)
    by_svi = train_svi.train(net, *streams(), 4, optimiser)
    log = run(new_net(), alternating(), 4, objective=Objective(), optimiser=optimiser).log
    by_loop = log["loss"].tolist()
    # The library lays weights out otherwise, so that convolutions round otherwise, and Adam
    # amplifies the differences.
    assert by_svi[0] == pytest.approx(by_loop[0], abs=1e-4)
    assert by_svi == pytest.approx(by_loop, rel=0.1)
    assert by_svi[2] < by_svi[0]


def test_the_log_has_every_metric_from_the_first_step(slices: Slices) -> None:
    log = run(new_net(), mixed(slices), 1, validation=slices).log
    columns = set(log.columns)
    assert {"loss", "elbo/log_px", "elbo/log_py", "elbo/kl", "label_drop"} <= columns
    assert {f"kl/z{n}" for n in range(1, 6)} <= columns
    for prefix, number in {
        "style_gap/": 6, "share/": 4, "labelled/": 4, "predicted/": 4,
        "unlabelled_style_gap/": 6, "unlabelled_share/": 4, "validation/": 3,
    }.items():  # fmt: skip
        assert sum(column.startswith(prefix) for column in columns) == number, prefix
    assert log[[c for c in columns if not c.startswith("validation/")]].notna().all(axis=None)


# --- Steps that are not finite --------------------------------------------------------------------


def spoilt(batches: Iterator[Batch], bad: set[int]) -> Iterator[Batch]:
    for step, batch in enumerate(batches, 1):
        yield Batch(batch.x * math.nan, batch.allowed) if step in bad else batch


def test_steps_that_are_not_finite_are_skipped_and_counted(slices: Slices) -> None:
    net = new_net()
    state = run(net, spoilt(TwoStreams(slices, None, (2, 0)).batches(), {2}), 3, log_every=3)
    assert state.skipped == 1
    assert all(t.isfinite().all() for t in net.state_dict().values())


def test_twenty_bad_steps_in_a_row_stop_the_run() -> None:
    allowed = torch.ones(2, 32, 32, 4, dtype=torch.bool)
    always = iter(lambda: Batch(torch.full((2, 32, 32), math.nan), allowed), None)
    with pytest.raises(FloatingPointError, match=r"its grey values\. Lower the learning"):
        run(new_net(), always, 50, log_every=100)


# --- The optimiser --------------------------------------------------------------------------------


def test_the_learning_rate_rises_then_stays_or_falls_along_a_cosine() -> None:
    constant = OptimiserConfig(learning_rate=8, warmup=4)
    assert [constant.rate(step, 100) for step in (1, 2, 4, 5, 100)] == [2, 4, 8, 8, 8]
    cosine = replace(constant, decay="cosine")
    rates = [cosine.rate(step, 24) for step in range(1, 25)]
    assert rates[:5] == [2, 4, 6, 8, 8]
    assert rates[4 + 10] == pytest.approx(4)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.1


@pytest.mark.parametrize("wrong", [{"warmup": -1}, {"ema": 1.0}, {"ema": -0.1}])
def test_schedules_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"(warmup|ema) must be"):
        OptimiserConfig(**wrong)  # type: ignore[arg-type]


def test_steps_follow_the_schedule(slices: Slices) -> None:
    state = run(
        new_net(),
        TwoStreams(slices, None, (2, 0)).batches(),
        1,
        optimiser=OptimiserConfig(learning_rate=1, warmup=1000),
    )
    assert [group["lr"] for group in state.adam.param_groups] == [1e-3]


def test_the_average_of_the_weights_is_kept(slices: Slices) -> None:
    weights = []
    net = new_net()
    batches = TwoStreams(slices, None, (2, 0)).batches()

    def recording() -> Iterator[Batch]:  # the weights after each step
        for i, batch in enumerate(batches):
            if i:
                weights.append(next(net.parameters()).detach().clone())
            yield batch

    state = run(net, recording(), 3, optimiser=replace(TINY.optimiser, ema=0.75))
    assert len(weights) == 2
    assert state.average is not None
    kept = next(net.parameters())
    assert torch.equal(kept, next(state.average.module.parameters()))
    # kept = d3 (d2 w1 + (1 - d2) w2) + (1 - d3) w3 with decays d2 = 2/11 and d3 = 3/12, so w3
    # follows, and must be one more step of similar length.
    d2, d3 = 2 / 11, 3 / 12
    last = (kept - d3 * (d2 * weights[0] + (1 - d2) * weights[1])) / (1 - d3)
    step, earlier = (last - weights[1]).norm(), (weights[1] - weights[0]).norm()
    assert 0.2 * earlier < step < 5 * earlier
    assert not torch.equal(kept, weights[1])


def test_clipping_bounds_each_tensor(slices: Slices) -> None:
    """Tensor by tensor, so that one large gradient does not scale down the others."""
    net = new_net()
    state = run(
        net,
        TwoStreams(slices, None, (2, 0)).batches(),
        1,
        optimiser=OptimiserConfig(clip_norm=1e-3),
    )
    norms = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None])
    assert float(norms.max()) <= 1.001e-3
    assert float((norms > 0.999e-3).float().mean()) > 0.5
    assert state.log["gradient_norm"].iloc[0] > 1


# --- Weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0.1, float("nan")])
def test_the_weights_with_the_best_validation_are_kept(
    slices: Slices, monkeypatch: pytest.MonkeyPatch, first: float
) -> None:
    scores = iter([first, 0.7, 0.3])
    validated = []

    def validate(learner: ElboLearner, _: Slices) -> tuple[float, dict[str, float]]:
        validated.append(next(learner.net.parameters()).detach().clone())
        score = next(scores)
        return score, {"validation/dice": score}

    monkeypatch.setattr(ElboLearner, "validate", validate)
    net = new_net()
    batches = TwoStreams(slices, None, (2, 0)).batches()
    state = run(net, batches, 3, validation=slices, validate_every=1)
    assert state.best_step == 2
    assert torch.equal(next(net.parameters()), validated[1])
    assert not torch.equal(validated[1], validated[2])


@pytest.mark.slow
def test_learns_phantoms() -> None:
    """Overfits four slices: the bound, the labels and their effect on x, all far from chance."""
    slices = phantom_slices(range(8), 1, size=64)
    diseased = [i for i, y in enumerate(slices.labels()) if (y == 2).any() and (y == 3).any()]
    streams = TwoStreams(slices.take(diseased[:4]), None, (4, 0), augment=False)
    net, objective = new_net(), replace(TINY.objective, kl_warmup=0)
    first = diagnose(net, streams[0])
    run(net, streams.batches(), 60, objective=objective, log_every=60)
    last = diagnose(net, streams[0])
    assert last["elbo/log_px"] > first["elbo/log_px"] + 0.5
    assert last["elbo/log_py"] > first["elbo/log_py"] + 0.5
    assert last["label_drop"] > 1
    assert last["style_gap/healthy-consolidation"] > 0.1


def test_no_steps_are_refused(slices: Slices) -> None:
    with pytest.raises(ValueError, match="steps"):
        run(new_net(), islice(TwoStreams(slices, None, (1, 0)).batches(), 0), 0)
