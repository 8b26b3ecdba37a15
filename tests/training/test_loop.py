"""The loop: learns, repeats itself, survives bad steps, and agrees with pyro.infer.SVI."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch

from examples import train_svi
from pyro_stitchnet.data.datasets.batches import Batch, TwoStreams
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import Objective, OptimiserConfig, preset
from pyro_stitchnet.training.learner import ElboLearner, warmed_up
from pyro_stitchnet.training.loop import train
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.validation import validate

TINY = preset("tiny")


@pytest.fixture(scope="module")
def slices() -> Slices:
    return phantom_slices([0, 1, 2], 2, size=64)


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


def test_same_seed_same_run(slices: Slices) -> None:
    logs = [run(new_net(), TwoStreams(slices, slices, (2, 2)).batches(), 3).log for _ in range(2)]
    assert logs[0].equals(logs[1])


def test_watching_does_not_change_the_run(slices: Slices) -> None:
    """How often figures are logged or validated leaves the losses as they are."""
    seldom, often = (
        run(
            new_net(),
            TwoStreams(slices, slices, (2, 2)).batches(),
            4,
            log_every=every,
            validate_every=every,
            validation=slices,
        )
        .log["loss"]
        .iloc[-1]
        for every in (4, 1)
    )
    assert seldom == often


@pytest.mark.filterwarnings("ignore:.*was not registered in the param store:UserWarning")
def test_svi_and_the_loop_reach_the_same_loss(slices: Slices) -> None:
    """examples/train_svi.py and the library: same seed, same losses, step by step."""
    optimiser = OptimiserConfig()
    net = new_net()
    torch.manual_seed(1)
    by_svi = train_svi.train(net, TwoStreams(slices, slices, (2, 2)).batches(), 4, optimiser)
    log = run(
        new_net(),
        TwoStreams(slices, slices, (2, 2)).batches(),
        4,
        objective=Objective(),
        optimiser=optimiser,
    ).log
    # The library lays weights out otherwise, so that convolutions round otherwise, and Adam
    # enlarges what differs.
    by_loop = log["loss"].tolist()
    assert by_svi[0] == pytest.approx(by_loop[0], abs=1e-4)
    assert by_svi == pytest.approx(by_loop, rel=0.02)
    assert by_svi[-1] < by_svi[0]


def test_log_has_every_figure_from_the_first_step(slices: Slices) -> None:
    log = run(new_net(), TwoStreams(slices, slices, (2, 2)).batches(), 1, validation=slices).log
    columns = set(log.columns)
    assert {"loss", "elbo/log_px", "elbo/log_py", "elbo/kl", "label_drop"} <= columns
    assert {f"kl/z{n}" for n in range(1, 6)} <= columns
    assert sum(c.startswith("style_gap/") for c in columns) == 6
    assert sum(c.startswith("share/") for c in columns) == 4
    assert sum(c.startswith("unlabelled_style_gap/") for c in columns) == 6
    assert log[[c for c in columns if not c.startswith("validation/")]].notna().all(axis=None)


def spoilt(batches: Iterator[Batch], bad: set[int]) -> Iterator[Batch]:
    for step, batch in enumerate(batches, 1):
        yield Batch(batch.x * math.nan, batch.allowed) if step in bad else batch


def test_steps_that_are_not_finite_are_left_out_and_counted(slices: Slices) -> None:
    net = new_net()
    trained = run(net, spoilt(TwoStreams(slices, None, (2, 0)).batches(), {2}), 3, log_every=3)
    assert trained.skipped == 1
    assert all(t.isfinite().all() for t in net.state_dict().values())


def test_twenty_bad_steps_in_a_row_stop_the_run(slices: Slices) -> None:
    batch = next(TwoStreams(slices, None, (1, 0)).batches())
    always = iter(lambda: Batch(batch.x * math.nan, batch.allowed), None)
    with pytest.raises(FloatingPointError, match="learning rate"):
        run(new_net(), always, 50, log_every=100)


def test_kl_warm_up() -> None:
    objective = Objective(kl_warmup=4, kl_weight=2.0)
    weights = [warmed_up(objective, step).kl_weight for step in range(1, 6)]
    assert weights == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert warmed_up(Objective(), 1).kl_weight == 1


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
    with pytest.raises(ValueError, match="warmup must be at least 0 and ema in"):
        OptimiserConfig(**wrong)  # type: ignore[arg-type]


def test_steps_follow_the_schedule(slices: Slices) -> None:
    first = run(
        new_net(),
        TwoStreams(slices, None, (2, 0)).batches(),
        1,
        optimiser=OptimiserConfig(learning_rate=1, warmup=1000),
    )
    assert [group["lr"] for group in first.adam.param_groups] == [1e-3]


def test_the_average_of_the_weights_is_what_is_kept(slices: Slices) -> None:
    seen = []
    net = new_net()
    batches = TwoStreams(slices, None, (2, 0)).batches()

    def watched() -> Iterator[Batch]:  # the weights after each step
        for i, batch in enumerate(batches):
            if i:
                seen.append(next(net.parameters()).detach().clone())
            yield batch

    state = run(net, watched(), 3, optimiser=replace(TINY.optimiser, ema=0.75))
    assert len(seen) == 2
    assert state.average is not None
    kept = next(net.parameters())
    assert torch.equal(kept, next(state.average.module.parameters()))
    # kept = 3/4 (3/4 w1 + 1/4 w2) + 1/4 w3, so w3 follows and must be one more step of like size
    last = 4 * (kept - 0.75 * (0.75 * seen[0] + 0.25 * seen[1]))
    step, before = (last - seen[1]).norm(), (seen[1] - seen[0]).norm()
    assert 0.2 * before < step < 5 * before
    assert not torch.equal(kept, seen[1])


def test_clipping_bounds_each_tensor(slices: Slices) -> None:
    """Tensor by tensor, so that one large gradient does not silence the others."""
    net = new_net()
    trained = run(
        net,
        TwoStreams(slices, None, (2, 0)).batches(),
        1,
        optimiser=OptimiserConfig(clip_norm=1e-3),
    )
    norms = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None])
    assert float(norms.max()) <= 1.001e-3
    assert float((norms > 0.999e-3).float().mean()) > 0.5
    assert trained.log["gradient_norm"].iloc[0] > 1


def test_keeps_the_weights_best_on_validation(
    slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.7, 0.3])
    kept = []

    def fake(net: StitchNet, _: Slices) -> dict[str, float]:
        kept.append(next(net.parameters()).detach().clone())
        score = next(scores)
        return dict.fromkeys(
            ("validation/dice", "validation/dice_ggo", "validation/dice_consolidation"), score
        )

    monkeypatch.setattr("pyro_stitchnet.training.loop.validate", fake)
    net = new_net()
    trained = run(
        net, TwoStreams(slices, None, (2, 0)).batches(), 3, validation=slices, validate_every=1
    )
    assert trained.best_step == 2
    assert torch.equal(next(net.parameters()), kept[1])
    assert not torch.equal(kept[1], kept[2])


def test_validate_scores_a_perfect_segmentation_one(
    slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = torch.nn.functional.one_hot(slices.labels()).movedim(-1, 1)
    monkeypatch.setattr("pyro_stitchnet.training.learner.predict", lambda net, x: truth)
    assert validate(ElboLearner(new_net(), TINY.objective), slices)["validation/dice"] == 1


@pytest.mark.slow
def test_learns_phantoms() -> None:
    """Overfits four slices: the bound, the labels and how much they matter, all far from chance."""
    slices = phantom_slices(range(8), 1, size=64)
    diseased = [i for i, y in enumerate(slices.labels()) if (y == 2).any() and (y == 3).any()]
    trained = run(
        new_net(),
        TwoStreams(slices.take(diseased[:4]), None, (4, 0), augment=False).batches(),
        60,
        objective=replace(TINY.objective, kl_warmup=0),
        log_every=60,
    )
    first, last = trained.log.iloc[0], trained.log.iloc[-1]
    assert last["elbo/log_px"] > first["elbo/log_px"] + 0.5
    assert last["elbo/log_py"] > -0.5 > first["elbo/log_py"]
    assert last["label_drop"] > 1
    assert last["style_gap/healthy-consolidation"] > 0.1


def test_refuses_no_steps(slices: Slices) -> None:
    with pytest.raises(ValueError, match="steps"):
        run(new_net(), islice(TwoStreams(slices, None, (1, 0)).batches(), 0), 0)
