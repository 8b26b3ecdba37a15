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
from pyro_stitchnet.training.callbacks import Callback
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.step import Stepper
from pyro_stitchnet.training.validation import validate

__all__ = ["train"]

IN_A_ROW = 20  # steps that are not finite, after which no others are hoped for


def train(
    state: State,
    batches: Iterator[Batch],
    steps: int,
    *,
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
    """Train ``state``'s model on its own device up to a number of steps; it ends with its best.

    The log's columns: ``step``, ``loss``,
    ``gradient_norm``, those of the learner's ``figures``, and where
    validated those of :func:`~pyro_stitchnet.training.validation.validate`. Only the first process
    has a log, validates and tells the callbacks.

    Args:
        state: a run, new or gone on with.
        batches: what to train on, from batch number ``state.step * accumulate`` on.
        steps: optimiser steps of the whole run.
        validation: fully labelled slices by whose mean Dice of GGO and consolidation the weights
            to keep are chosen; None keeps the last.
        callbacks: what to tell of the run.
        accumulate: batches whose gradients make one step.
        log_every: steps between two rows of the log.
        validate_every: steps between two validations.
        keep_every: steps between two states for the callbacks to keep.
        patience: validations in a row without a better one after which to stop.
        minutes: of this call, after which the step under way is the last. The learning rate falls
            with the steps or with the minutes, whichever are nearer their end.
        fast: validate at the end only, and log nothing that costs more than the step itself.

    On Ctrl-C or SIGTERM the step under way is ended and the state kept; a second one stops at once.

    Raises:
        ValueError: one of the numbers is below 1, or ``minutes`` not above 0.
        FloatingPointError: every one of 20 steps in a row was not finite; the message says what
            was not, and on which slices.
        KeyboardInterrupt: the run was stopped; its message says where.
    """
    numbers = (steps, log_every, validate_every, keep_every, accumulate)
    if min(numbers) < 1:
        raise ValueError(f"steps and intervals must be at least 1, got {numbers}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes}")
    fabric = state.fabric
    told = callbacks if fabric.is_global_zero else ()
    stepper = Stepper(state)
    state.learner.train()
    begun = time.monotonic()
    with _stopping() as asked, _watched(told, state, steps):
        while state.step < steps and not _stale(state, patience):
            step = state.step + 1
            parts = [next(batches).to(fabric.device) for _ in range(accumulate)]
            passed = 0.0  # of the minutes; by the first process's clock in all of them
            if minutes is not None:
                passed = fabric.broadcast((time.monotonic() - begun) / (60 * minutes))
            for group in state.adam.param_groups:
                group["lr"] = state.optimiser.rate(max(step, int(min(passed, 1) * steps)), steps)
            loss, norm = stepper(parts)
            finite = math.isfinite(loss) and math.isfinite(norm)
            state.count(finite)
            if state.in_a_row >= IN_A_ROW:
                raise FloatingPointError(
                    f"{IN_A_ROW} steps in a row up to step {step} had no finite loss or gradient; "
                    f"{state.learner.why_not_finite(parts[-1])}. Lower the learning rate, or "
                    "choose a likelihood of bounded precision"
                )
            for callback in told:
                callback.step(state, loss)
            row: dict[str, float] = {}
            last = step == steps or passed >= 1
            if finite and (step % log_every == 0 or step == 1 or last):
                row = {"loss": loss, "gradient_norm": norm}
                if not fast and fabric.is_global_zero:
                    with fabric.autocast():
                        row |= state.learner.figures(parts[-1])
            if validation is not None and (last or (step % validate_every == 0 and not fast)):
                row |= _validated(state, validation)
            if row:
                state.rows.append({"step": step, **row})
                for callback in told:
                    callback.row(state, row)
            stop = bool(fabric.all_reduce(torch.tensor(float(asked())), reduce_op="sum"))
            if step % keep_every == 0 or last or stop or _stale(state, patience):
                for callback in told:
                    callback.keep(state)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step} of {steps}")
            if last:
                break
    state.restore_best()


def _validated(state: State, validation: Slices) -> dict[str, float]:
    """The first process validates; all keep the same best weights."""
    figures: dict[str, float] = {}
    fabric = state.fabric
    if fabric.is_global_zero:
        with fabric.autocast():
            figures = validate(state.answer, validation)
    figures = fabric.broadcast(figures)
    state.offer(figures["validation/dice"])
    return figures


def _stale(state: State, patience: int | None) -> bool:
    """Whether the last ``patience`` validations found nothing better."""
    since = [row for row in state.rows if row["step"] > state.best_step]
    return patience is not None and sum("validation/dice" in row for row in since) >= patience


@contextmanager
def _watched(callbacks: Sequence[Callback], state: State, steps: int) -> Iterator[None]:
    """Tell the callbacks that the run begins, and that it ends, however that comes."""
    for callback in callbacks:
        callback.begin(state, steps)
    try:
        yield
    finally:
        for callback in callbacks:
            callback.end(state)


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came, which does not interrupt what is under way."""
    came = False
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(*_: object) -> None:
        nonlocal came
        came = True
        restore()  # a second one stops at once

    if threading.current_thread() is threading.main_thread():  # no other may set them
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        restore()
