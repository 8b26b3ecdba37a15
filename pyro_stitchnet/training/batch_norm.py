"""Batch norm's running statistics, recomputed for averaged weights.

An average of weights needs statistics of its own. The average of the statistics belongs to other
weights, and evaluation mode would then be worse than training mode (Izmailov et al. 2018).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.training.learner import Learner

__all__ = ["batch_statistics", "mode_gap", "recompute_statistics", "statistics_of"]

T = TypeVar("T")


def recompute_statistics(learner: Learner, batches: Sequence[Batch], step: int) -> None:
    """Set batch norm's running statistics to their means over some batches.

    The random state and the learner's mode are restored. A learner without batch norm, and one
    without batches, stays as it is. Gradients stay enabled, since TraceEnum_ELBO needs them.

    Args:
        learner: the networks to evaluate.
        batches: of training; each is passed through the networks once, see
            :meth:`~pyro_stitchnet.training.learner.Learner.pass_for_statistics`.
        step: of the loss.
    """
    layers = [one for one in learner.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    if not layers or not batches:
        return
    momenta = [layer.momentum for layer in layers]

    def passes() -> None:
        for number, batch in enumerate(batches, 1):
            for layer in layers:
                layer.momentum = 1 / number  # a cumulative mean, which the first pass restarts
            learner.pass_for_statistics(batch, step)

    try:
        _as_if_apart(learner, passes, training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def mode_gap(learner: Learner, batch: Batch, step: int) -> float:
    """Return by how much evaluation mode raises the loss of a training batch.

    Both modes see the same draws. Far above 0, the running statistics do not fit the weights.
    """

    def loss() -> float:
        return float(learner.loss(batch, step).loss.detach())

    with _buffers_kept(learner):
        trained = _as_if_apart(learner, loss, training=True)
    return _as_if_apart(learner, loss, training=False) - trained


@contextmanager
def statistics_of(learner: Learner, batches: Sequence[Batch], step: int) -> Iterator[None]:
    """Have running statistics recomputed from other batches within, and the old ones afterwards.

    See :func:`recompute_statistics`.
    """
    with _buffers_kept(learner):
        recompute_statistics(learner, batches, step)
        yield


@contextmanager
def batch_statistics(network: torch.nn.Module) -> Iterator[None]:
    """Normalise by the statistics of each batch within, also in evaluation mode.

    Layers that keep fixed statistics in training keep them here. The running statistics stay as
    they are, and all modes are restored.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.train()
    layers = [one for one, _ in modes if isinstance(one, torch.nn.BatchNorm2d) and one.training]
    for module, training in modes:
        module.training = training
    momenta = [layer.momentum for layer in layers]

    def to_training(layer: torch.nn.Module, _: object) -> None:
        layer.train()

    hooks = [layer.register_forward_pre_hook(to_training) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, hook in zip(layers, momenta, hooks, strict=True):
            hook.remove()
            layer.momentum = momentum
        for module, training in modes:
            module.training = training


@contextmanager
def _buffers_kept(network: torch.nn.Module) -> Iterator[None]:
    """Restore all buffers at the end."""
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)


def _as_if_apart(learner: Learner, function: Callable[[], T], *, training: bool) -> T:
    """Call a function in a mode, with a fixed seed; mode and random state are restored."""
    was_training = learner.training
    devices = [p.device for p in learner.parameters() if p.is_cuda][:1]
    learner.train(training)
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            return function()
    finally:
        learner.train(was_training)
