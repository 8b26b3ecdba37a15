"""The training loop: steps, rows of the log, validations, and an orderly stop."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.training.batch_norm import mode_gap, recompute_statistics
from pyro_stitchnet.training.callbacks import Callback
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.step import Stepper

__all__ = ["train"]

MOST_IN_A_ROW = 20  # steps that are not finite


def train(
    state: State,
    batches: Iterator[Batch],
    steps: int,
    *,
    statistics: Sequence[Batch] = (),
    validation: Slices | None = None,
    callbacks: Sequence[Callback] = (),
    accumulate: int = 1,
    log_every: int = 10,
    validate_every: int = 100,
    keep_every: int = 100,
    patience: int | None = None,
    minutes: float | None = None,
    fast: bool = False,
) -> None:
    """Train the state's model up to a number of steps; it ends with its best weights.

    The columns of the log are ``step``, ``loss``, ``gradient_norm``, the learner's metrics, and
    after a validation the learner's validation metrics and ``mode_gap``, by how much evaluation
    mode raises the loss of a training batch. Only the first process keeps a log, validates and runs
    the callbacks.

    Args:
        state: a run, new or resumed.
        batches: training batches, from number ``state.step * accumulate`` on.
        steps: optimiser steps of the whole run.
        statistics: training batches from which batch norm's running statistics are recomputed
            before weights are evaluated and kept.
        validation: slices by which the weights are chosen; None keeps the last weights.
        callbacks: called during the run.
        accumulate: batches whose gradients make one step.
        log_every: steps between two rows of the log.
        validate_every: steps between two validations.
        keep_every: steps between two saved states.
        patience: validations in a row without improvement after which to stop.
        minutes: of the whole run, after which the current step is the last. The learning rate
            falls with the steps or with the minutes, whichever end first.
        fast: validate at the end only, and log only the loss and the gradient's norm.

    On Ctrl-C or SIGTERM the current step ends and the state is saved; a second one stops at once.

    Raises:
        ValueError: one of the numbers is below 1, or ``minutes`` is not above 0.
        FloatingPointError: 20 steps in a row were not finite; the message names the terms and the
            slices.
        KeyboardInterrupt: the run was stopped; the message has the step.
    """
    numbers = (steps, log_every, validate_every, keep_every, accumulate)
    if min(numbers) < 1:
        raise ValueError(f"steps and intervals must be at least 1, got {numbers}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes}")
    fabric = state.fabric
    callbacks = callbacks if fabric.is_global_zero else ()
    stepper = Stepper(state)
    state.learner.train()
    begun = time.monotonic() - state.seconds
    with _stopping() as requested, _watched(callbacks, state, steps):
        while state.step < steps and not _stale(state, patience):
            step = state.step + 1
            parts = [next(batches).to(fabric.device) for _ in range(accumulate)]
            state.seconds = time.monotonic() - begun
            passed = 0.0  # share of the minutes, by the clock of the first process
            if minutes is not None:
                passed = fabric.broadcast(state.seconds / (60 * minutes))
            for group in state.adam.param_groups:
                group["lr"] = state.optimiser.rate(max(step, int(min(passed, 1) * steps)), steps)
            loss, norm, output = stepper(parts)
            finite = math.isfinite(loss) and math.isfinite(norm)
            state.count(finite)
            if state.in_a_row >= MOST_IN_A_ROW:
                raise FloatingPointError(
                    f"{MOST_IN_A_ROW} steps in a row up to step {step} had no finite loss or "
                    f"gradient; {state.learner.why_not_finite(parts[-1])}. Lower the learning "
                    "rate, or choose a likelihood of bounded precision"
                )
            for callback in callbacks:
                callback.step(state, loss)
            row: dict[str, float] = {}
            last = step == steps or passed >= 1
            if finite and (step % log_every == 0 or step == 1 or last):
                row = {"loss": loss, "gradient_norm": norm}
                if not fast and fabric.is_global_zero:
                    with fabric.autocast():
                        row |= state.learner.metrics(parts[-1], output)
            if validation is not None and (last or (step % validate_every == 0 and not fast)):
                row |= _validated(state, validation, statistics)
            if row:
                state.rows.append({"step": step, **row})
                for callback in callbacks:
                    callback.row(state, row)
            stop = bool(fabric.all_reduce(torch.tensor(float(requested())), reduce_op="sum"))
            if step % keep_every == 0 or last or stop or _stale(state, patience):
                for callback in callbacks:
                    callback.keep(state)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step} of {steps}")
            if last:
                break
    if validation is None:
        with fabric.autocast():
            recompute_statistics(state.evaluated, statistics, state.step)
    state.restore_best()


def _validated(state: State, validation: Slices, statistics: Sequence[Batch]) -> dict[str, float]:
    """Validate in the first process; all processes keep the same best weights."""
    score, metrics = 0.0, dict[str, float]()
    fabric = state.fabric
    with fabric.autocast():
        recompute_statistics(state.evaluated, statistics, state.step)
        gap = {}
        if statistics:
            gap["mode_gap"] = mode_gap(state.evaluated, statistics[0], state.step)
    if fabric.is_global_zero:
        with fabric.autocast():
            score, metrics = state.evaluated.validate(validation)
    score, metrics = fabric.broadcast((score, metrics))
    state.offer(score)
    return metrics | gap


def _stale(state: State, patience: int | None) -> bool:
    """Return whether the last ``patience`` validations brought no improvement."""
    if patience is None:
        return False
    since = [row for row in state.rows if row["step"] > state.best_step]
    validated = sum(any(name.startswith("validation/") for name in row) for row in since)
    return validated >= patience


@contextmanager
def _watched(callbacks: Sequence[Callback], state: State, steps: int) -> Iterator[None]:
    """Call ``begin`` of the callbacks, and their ``end`` also after an error."""
    for callback in callbacks:
        callback.begin(state, steps)
    try:
        yield
    finally:
        for callback in callbacks:
            callback.end(state)


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C or SIGTERM arrived; the step continues."""
    received = False
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(*_: object) -> None:
        nonlocal received
        received = True
        restore()  # a second one stops at once

    if threading.current_thread() is threading.main_thread():  # only it can set handlers
        before = {
            number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)
        }
    try:
        yield lambda: received
    finally:
        restore()
