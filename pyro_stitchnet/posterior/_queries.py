"""Shared steps of every query: checked input, evaluation mode, batches, draws of z."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.checks import check_slices
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS
from pyro_stitchnet.posterior.views import average_views
from pyro_stitchnet.runtime.precision import Precision, autocast

__all__ = [
    "AtMean",
    "Model",
    "Temperature",
    "Tempered",
    "check_labels",
    "draws_of_z",
    "evaluating",
    "in_batches",
    "infer_z",
    "mean",
    "seeded",
    "trace_z",
]

Model = StitchNet | SliceVAE

Temperature = float | Mapping[int, float]


class Tempered(Messenger):
    """A Pyro handler that narrows or widens the draws of z: mean + t (draw - mean).

    0 takes the mean, 1 changes nothing.
    """

    def __init__(self, temperature: Temperature = 1.0) -> None:
        """Take t, for all levels or by level (1 to 5; levels not named keep 1)."""
        super().__init__()
        if isinstance(temperature, Mapping):
            if unknown := set(temperature) - set(range(1, LEVELS + 1)):
                raise ValueError(f"z has the levels 1 to {LEVELS}, not {sorted(unknown)}")
            by_level = {f"z{level}": t for level, t in temperature.items()}
        else:
            by_level = {f"z{level}": temperature for level in range(1, LEVELS + 1)}
        if any(t < 0 for t in by_level.values()):
            raise ValueError(f"a temperature must be at least 0, got {temperature}")
        self.by_level = by_level

    def _pyro_sample(self, msg: Any) -> None:
        t = self.by_level.get(msg["name"], 1.0)
        if t == 1 or msg["is_observed"] or msg["value"] is not None:
            return
        mean = msg["fn"].mean
        msg["value"] = mean + t * (msg["fn"]() - mean) if t else mean
        msg["done"] = True


class AtMean(Tempered):
    """A Pyro handler under which every level of z takes its distribution's mean."""

    def __init__(self) -> None:
        """Take no arguments."""
        super().__init__(0.0)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the draws within; afterwards the global generators have their former state."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def check_labels(labels: Tensor, x: Tensor) -> None:
    """Refuse anything but a label map of the slices.

    Raises:
        ValueError: another shape than ``x``'s, not integers, or an unknown label.
    """
    if labels.shape != x.shape:
        raise ValueError(f"labels {tuple(labels.shape)} must have the slices' {tuple(x.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels are {labels.dtype}; give integers")
    if labels.numel() and not 0 <= labels.min() <= labels.max() < len(LABELS):
        raise ValueError(
            f"labels from {int(labels.min())} to {int(labels.max())}; there are "
            f"0 to {len(LABELS) - 1}: {', '.join(LABELS)}"
        )


@contextmanager
def evaluating(net: Model) -> Iterator[None]:
    """Evaluation mode, no gradients, and one evaluation of each network per input, within."""
    training = [module for module in net.modules() if module.training]
    if training:  # to set the mode of a thousand modules takes as long as a small slice
        net.eval()
    try:
        with torch.no_grad(), net.memo.one_pass():
            yield
    finally:
        for module in training:
            module.training = True


def in_batches(
    net: Model,
    x: Tensor,
    query: Callable[[Tensor], Tensor],
    *,
    views: int = 1,
    batch_size: int = 8,
    precision: Precision = "32",
) -> Tensor:
    """Apply ``query`` to the slices in batches, averaged over views.

    ``precision`` is that of the networks.

    Raises:
        ValueError: :func:`~pyro_stitchnet.model.checks.check_slices` refuses ``x``, or a number is
            out of its range.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    check_slices(net, x)

    def batched(slices: Tensor) -> Tensor:
        parts = []
        for part in slices.split(batch_size):
            with evaluating(net), autocast(precision, x.device):
                parts.append(query(part).float())
        return torch.cat(parts)

    return torch.cat([average_views(batched, part, views) for part in x.split(batch_size)])


def infer_z(net: Model, x: Tensor) -> Tensor:
    """Draw z from q(z | x) and return z1; without the label term's part of the guide."""
    with pyro.plate("slices", len(x), dim=-3):
        return net.svae.guide(x, net.objective)


def trace_z(net: Model, x: Tensor) -> poutine.Trace:
    """The trace of q(z | x): sites z5 ... z1."""
    return poutine.trace(infer_z).get_trace(net, x)


def draws_of_z(net: Model, x: Tensor, samples: int) -> Iterator[Tensor]:
    """Draws of z1 from q(z | x), one at a time; its mean for 0 samples.

    The networks' results for a draw are dropped when the next one is drawn.
    """
    if samples < 0:
        raise ValueError(f"samples must be at least 0, got {samples}")
    for _ in range(max(samples, 1)):
        with net.memo.one_draw():
            with Tempered(1.0 if samples else 0.0):
                z1 = infer_z(net, x)
            yield z1


def mean(values: Iterable[Tensor]) -> Tensor:
    """The mean of tensors of one shape, holding two at a time."""
    total, n = torch.zeros(()), 0
    for value in values:
        total, n = (total + value if n else value), n + 1
    return total / n
