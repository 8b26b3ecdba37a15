"""The training loop: a torch optimiser on the negative ELBO."""

import math
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyro
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import nn

from pyro_stitchnet.data.batches import Batch
from pyro_stitchnet.data.slices import Slices
from pyro_stitchnet.evaluation.metrics import slice_scores
from pyro_stitchnet.objective import negative_elbo
from pyro_stitchnet.posterior import segment
from pyro_stitchnet.presets import Objective
from pyro_stitchnet.stitchnet import StitchNet
from pyro_stitchnet.training.diagnostics import diagnose
from pyro_stitchnet.training.state import State

__all__ = ["train", "update", "validate", "warmed_up"]


def train(
    state: State,
    batches: Iterator[Batch],
    steps: int,
    *,
    objective: Objective,
    validation: Slices | None = None,
    log_every: int = 10,
    validate_every: int = 100,
    keep: Callable[[], None] | None = None,
    keep_every: int = 100,
    progress: bool = True,
) -> None:
    """Train ``state``'s model on its own device up to a number of steps; it ends with its best.

    The log's columns: ``step``, ``elbo/loss`` (the objective in nats per pixel),
    ``gradient_norm``, those of :func:`~pyro_stitchnet.training.diagnostics.diagnose`, and where
    validated those of :func:`validate`.

    Args:
        state: a run, new or gone on with.
        batches: what to train on, from batch number ``state.step`` on.
        steps: optimiser steps of the whole run.
        objective: the bound and its weights.
        validation: fully labelled slices by whose mean Dice of GGO and consolidation the weights
            to keep are chosen; None keeps the last.
        log_every: steps between two rows of the log.
        validate_every: steps between two validations.
        keep: saves the state. With it, Ctrl-C or SIGTERM saves once the step under way is done,
            then stops; a second one stops at once.
        keep_every: steps between two calls of ``keep``.
        progress: show a progress bar on the terminal.

    Raises:
        ValueError: ``steps`` or one of the intervals is below 1.
        FloatingPointError: every one of 20 steps in a row was not finite.
        KeyboardInterrupt: the run was stopped; its message says where.
    """
    for name, n in {
        "steps": steps,
        "log_every": log_every,
        "validate_every": validate_every,
        "keep_every": keep_every,
    }.items():
        if n < 1:
            raise ValueError(f"{name} must be at least 1, got {n}")
    net = state.net
    device = next(net.parameters()).device
    net.train()
    with _bar(progress) as bar, _stopping(gently=keep is not None) as stopped:
        task = bar.add_task("training", total=steps, completed=state.step, status="")
        while state.step < steps:
            step = state.step + 1
            batch = next(batches).to(device)
            for group in state.adam.param_groups:
                group["lr"] = state.optimiser.rate(step, steps)
            loss, norm = update(state, batch, warmed_up(objective, step))
            finite = math.isfinite(loss) and math.isfinite(norm)
            state.step = step
            state.skipped += not finite
            state.in_a_row = 0 if finite else state.in_a_row + 1
            if state.in_a_row >= 20:
                raise FloatingPointError(
                    f"20 steps in a row up to step {step} had no finite loss or gradient; "
                    "lower the learning rate or choose a likelihood of bounded precision"
                )
            row: dict[str, float] = {}
            if finite and (step % log_every == 0 or step in (1, steps)):
                row = {"elbo/loss": loss, "gradient_norm": norm, **diagnose(net, batch)}
                bar.update(task, status=f"loss {loss:.3f} nats/pixel")
            if validation is not None and (step % validate_every == 0 or step == steps):
                row |= validate(state.answer, validation)
                state.offer(row["validation/dice"])
                bar.console.print(
                    f"step {step}: loss {loss:.3f} nats/pixel, validation Dice "
                    f"GGO {row['validation/dice_ggo']:.3f}, "
                    f"consolidation {row['validation/dice_consolidation']:.3f}"
                )
            if row:
                state.rows.append({"step": step, **row})
            bar.advance(task)
            if keep is not None and (step % keep_every == 0 or step == steps or stopped()):
                keep()
            if stopped():
                raise KeyboardInterrupt(f"stopped after step {step} of {steps}, which is saved")
    state.restore_best()


@contextmanager
def _stopping(*, gently: bool) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came, which does not interrupt what is under way."""
    asked = False
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        restore()  # a second one stops at once

    if gently and threading.current_thread() is threading.main_thread():  # no other may set them
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        restore()


def update(state: State, batch: Batch, objective: Objective) -> tuple[float, float]:
    """One step; without a trace in the model where the loss or the gradient is not finite.

    Returns:
        The loss, and the norm of the whole gradient before clipping by norm.
    """
    net, adam, optimiser = state.net, state.adam, state.optimiser
    adam.zero_grad()
    buffers = [b.clone() for b in net.buffers()]  # batch norm's running statistics
    # A loss that is not finite is for the caller to count: without Pyro's checks it neither raises
    # nor warns.
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered")
        loss = negative_elbo(net, batch.x, batch.allowed, objective)
    loss.backward()
    # Tensor by tensor, as Keras and Pyro's optimisers do: at the start the batch-normalised
    # encoder's gradient is orders of magnitude larger than the heads', and one norm over all
    # would leave the heads nothing.
    if optimiser.clip_value is not None:
        nn.utils.clip_grad_value_(net.parameters(), optimiser.clip_value)
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    norms = torch.stack([g.norm() for g in gradients])
    shrink = (optimiser.clip_norm / (norms + 1e-6)).clamp_max(1)
    for gradient, factor in zip(gradients, shrink.unbind(), strict=True):
        gradient.mul_(factor)
    norm = norms.norm()
    if loss.isfinite() and norm.isfinite():
        adam.step()
        if state.average is not None:
            state.average.update_parameters(net)
    else:
        for buffer, before in zip(net.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return float(loss.detach()), float(norm)


def warmed_up(objective: Objective, step: int) -> Objective:
    """The objective of a step (from 1): its KL weight on the way up until ``kl_warmup``."""
    if step >= objective.kl_warmup:
        return objective
    return replace(objective, kl_weight=objective.kl_weight * step / objective.kl_warmup)


def validate(net: StitchNet, slices: Slices) -> dict[str, float]:
    """Mean Dice (F1 of eq. 1) of each lesion over the slices where it is defined, and of both.

    A lesion that no slice has or is given counts 0 in the mean of both.
    """
    device = next(net.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # the same draws of z at every validation
        labels = segment(net, slices.images.to(device)).labels.cpu()
    mean = slice_scores(slices.labels(), labels).groupby("lesion")["f1"].mean()
    lesions = mean[["GGO", "CON"]]
    return {
        "validation/dice_ggo": float(lesions["GGO"]),
        "validation/dice_consolidation": float(lesions["CON"]),
        "validation/dice": float(lesions.fillna(0).mean()),
    }


def _bar(visible: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not visible,
    )
