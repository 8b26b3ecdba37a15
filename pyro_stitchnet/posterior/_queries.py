"""How a trained model is asked: checked input, evaluation mode, batches, draws of z."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS, check_size
from pyro_stitchnet.posterior.views import averaged

__all__ = [
    "AtMean",
    "Temperature",
    "Tempered",
    "asking",
    "check_labels",
    "check_slices",
    "draws_of_z",
    "in_batches",
    "mean",
    "seeded",
]

Temperature = float | Mapping[int, float]


class Tempered(Messenger):
    """A Pyro handler that narrows or widens what is drawn of z: mean + t (draw - mean).

    0 takes the mean, 1 changes nothing.
    """

    def __init__(self, temperature: Temperature = 1.0) -> None:
        """Take t, for all levels or by level (1 to 5; those not named keep 1)."""
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
        """Take nothing."""
        super().__init__(0.0)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw by ``seed`` within; afterwards the global generators are as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def check_slices(net: StitchNet, x: Tensor) -> None:
    """Refuse what is no batch of slices for ``net``.

    Raises:
        ValueError: ``x`` is not (N, H, W), a size is not a multiple of 32 (times the model's
            ``shrink``), it lies on another device, or holds anything but grey values in [0, 1].
    """
    if x.ndim == 4 and x.shape[1] == 3:
        raise ValueError(
            f"slices of shape {tuple(x.shape)} have 3 channels; give grey values (N, H, W)"
        )
    check_size(tuple(x.shape), net.config.shrink)
    if x.is_floating_point() and x.isnan().any():
        raise ValueError("slices hold values that are no number (NaN); set them to that of air")
    if not x.is_floating_point() or not ((x >= 0) & (x <= 1)).all():
        raise ValueError(
            "slices must be floating-point grey values in [0, 1]: window and scale them first"
        )
    device = next(net.parameters()).device
    if x.device != device:
        raise ValueError(f"slices are on {x.device}, the model on {device}; move them there")


def check_labels(labels: Tensor, x: Tensor) -> None:
    """Refuse what is no label map of the slices.

    Raises:
        ValueError: another shape than ``x``'s, no integers, or a label that there is not.
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
def asking(net: StitchNet) -> Iterator[None]:
    """Ask within: evaluation mode, no gradients, networks asked once about one z or slice."""
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad(), net.svae.one_pass():
            yield
    finally:
        net.train(was_training)


def in_batches(
    net: StitchNet,
    x: Tensor,
    ask: Callable[[Tensor], Tensor],
    *,
    samples: int = 1,
    views: int = 1,
    batch_size: int = 8,
) -> Tensor:
    """What ``ask`` says of the slices, a batch of them at a time, averaged over views.

    Raises:
        ValueError: see :func:`check_slices`; or a number is out of its range.
    """
    if samples < 0 or batch_size < 1:
        raise ValueError("samples must be at least 0 and batch_size at least 1")
    check_slices(net, x)
    parts = []
    for part in x.split(batch_size):
        with asking(net):
            parts.append(averaged(ask, part, views))
    return torch.cat(parts)


def draws_of_z(net: StitchNet, x: Tensor, samples: int) -> Iterator[Tensor]:
    """Draws of z1 from q(z | x), one at a time; its mean for none.

    What the networks say of a draw is forgotten when the next one is asked for.
    """
    for _ in range(max(samples, 1)):
        with net.svae.one_draw():
            with Tempered(1.0 if samples else 0.0):
                z1 = net.guide(x)
            yield z1


def mean(values: Iterable[Tensor]) -> Tensor:
    """The mean of tensors of one shape, of which only two are held at a time."""
    total, n = torch.zeros(()), 0
    for value in values:
        total, n = (total + value if n else value), n + 1
    return total / n
