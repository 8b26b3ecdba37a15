"""The training loop: a torch optimiser on the negative ELBO."""

import copy
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd
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
from torch import Tensor, nn

from pyro_stitchnet.data.batches import Batch
from pyro_stitchnet.data.slices import Slices
from pyro_stitchnet.evaluation.metrics import slice_scores
from pyro_stitchnet.objective import Objective, negative_elbo
from pyro_stitchnet.posterior import segment
from pyro_stitchnet.presets import OptimiserConfig
from pyro_stitchnet.stitchnet import StitchNet
from pyro_stitchnet.training.diagnostics import diagnose

__all__ = ["Trained", "train", "update", "validate", "warmed_up"]


@dataclass(frozen=True)
class Trained:
    """What a run leaves beside the model, which ends with its best weights.

    Attributes:
        log: a row for every step logged, see :func:`train`.
        skipped: steps whose loss or gradient was not finite.
        best_step: the step of the weights kept: the best on validation, else the last.
    """

    log: pd.DataFrame
    skipped: int
    best_step: int


def train(
    net: StitchNet,
    batches: Iterator[Batch],
    steps: int,
    *,
    objective: Objective,
    optimiser: OptimiserConfig,
    validation: Slices | None = None,
    log_every: int = 10,
    validate_every: int = 100,
    progress: bool = True,
) -> Trained:
    """Train ``net`` in place, on its own device.

    The log's columns: ``step``, ``elbo/loss`` (the objective in nats per pixel),
    ``gradient_norm``, those of :func:`~pyro_stitchnet.training.diagnostics.diagnose`, and where
    validated those of :func:`validate`.

    Args:
        net: the model.
        batches: what to train on.
        steps: optimiser steps.
        objective: the bound and its weights.
        optimiser: learning rate and clipping.
        validation: fully labelled slices by whose mean Dice of GGO and consolidation the weights
            to keep are chosen; None keeps the last.
        log_every: steps between two rows of the log.
        validate_every: steps between two validations.
        progress: show a progress bar on the terminal.

    Raises:
        ValueError: ``steps``, ``log_every`` or ``validate_every`` is below 1.
        FloatingPointError: every one of the first 20 steps, or of any 20 in a row, was not finite.
    """
    for name, n in {
        "steps": steps,
        "log_every": log_every,
        "validate_every": validate_every,
    }.items():
        if n < 1:
            raise ValueError(f"{name} must be at least 1, got {n}")
    device = next(net.parameters()).device
    # The networks are a thousand small tensors: one by one, Adam takes a tenth of a step.
    adam = torch.optim.Adam(net.parameters(), lr=optimiser.learning_rate, fused=True)
    rows: list[dict[str, float]] = []
    best: tuple[float, int, dict[str, Tensor]] | None = None
    skipped, in_a_row = 0, 0
    net.train()
    with _bar(progress) as bar:
        task = bar.add_task("training", total=steps, status="")
        for step in range(1, steps + 1):
            batch = next(batches).to(device)
            loss, norm = update(net, batch, warmed_up(objective, step), adam, optimiser)
            finite = math.isfinite(loss) and math.isfinite(norm)
            skipped, in_a_row = skipped + (not finite), 0 if finite else in_a_row + 1
            if in_a_row >= 20:
                raise FloatingPointError(
                    f"20 steps in a row up to step {step} had no finite loss or gradient; "
                    "lower the learning rate or choose a likelihood of bounded precision"
                )
            row: dict[str, float] = {}
            if finite and (step % log_every == 0 or step in (1, steps)):
                row = {"elbo/loss": loss, "gradient_norm": norm, **diagnose(net, batch)}
                bar.update(task, status=f"loss {loss:.3f} nats/pixel")
            if validation is not None and (step % validate_every == 0 or step == steps):
                row |= validate(net, validation)
                score = row["validation/dice"]
                if best is None or score >= best[0]:
                    best = (score, step, copy.deepcopy(net.state_dict()))
                bar.console.print(
                    f"step {step}: loss {loss:.3f} nats/pixel, validation Dice "
                    f"GGO {row['validation/dice_ggo']:.3f}, "
                    f"consolidation {row['validation/dice_consolidation']:.3f}"
                )
            if row:
                rows.append({"step": step, **row})
            bar.advance(task)
    if best is not None:
        net.load_state_dict(best[2])
    net.eval()
    return Trained(pd.DataFrame(rows), skipped, best[1] if best else steps)


def update(
    net: StitchNet,
    batch: Batch,
    objective: Objective,
    adam: torch.optim.Optimizer,
    optimiser: OptimiserConfig,
) -> tuple[float, float]:
    """One step; without a trace in ``net`` where the loss or the gradient is not finite.

    Returns:
        The loss, and the norm of the whole gradient before clipping by norm.
    """
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
