"""Questions to a trained model: the segmentation of a slice, its styles, its reconstruction."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.stitchnet import StitchNet
from pyro_stitchnet.symmetry import averaged

__all__ = ["Answer", "AtMean", "ReadOut", "predict", "seeded", "segment", "style_gaps"]

ReadOut = Literal["guide", "prior", "posterior"]


class AtMean(Messenger):
    """A Pyro handler under which every unobserved site takes its distribution's mean."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and msg["value"] is None and hasattr(msg["fn"], "mean"):
            msg["value"] = msg["fn"].mean
            msg["done"] = True


@dataclass(frozen=True)
class Answer:
    """What the model makes of N slices.

    Attributes:
        probabilities: of each label, (N, K, H, W).
        styles: mean of each style, (N, K, H, W): the slice as if all of it were one tissue.
        stitched: each pixel from the style of its likeliest label, (N, H, W).
    """

    probabilities: Tensor
    styles: Tensor
    stitched: Tensor

    @property
    def labels(self) -> Tensor:
        """The likeliest label, int64 (N, H, W)."""
        return self.probabilities.argmax(1)


@torch.no_grad()
def segment(
    net: StitchNet,
    x: Tensor,
    *,
    samples: int = 1,
    views: int = 1,
    read_out: ReadOut | None = None,
    batch_size: int = 8,
) -> Answer:
    """Segment slices and draw their styles.

    Args:
        net: a trained model; asked in evaluation mode, left as it was.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: draws of z from q(z | x) to average over, from torch's global generator. 0 takes
            each level's mean instead: repeatable, but the decoder was trained on draws, and its
            batch norm (in the presets that have it) expects their spread.
        views: flips and quarter turns to average over, 1 to 8, see
            :func:`~pyro_stitchnet.symmetry.averaged`; each costs as much as the first.
        read_out: ``"guide"`` is q(y | x), for a model that has it; ``"prior"`` is p(y | z);
            ``"posterior"`` is p(y | x, z), Bayes' rule through the styles. By default the last for
            a model that has q(y | x), else p(y | z).
        batch_size: slices at a time.

    Raises:
        ValueError: ``x`` is not in [0, 1], a size is not a multiple of 32, or an option is out of
            its range.
    """
    read_out = read_out or ("posterior" if net.segmenter else "prior")
    if read_out not in get_args(ReadOut):
        raise ValueError(f"read_out {read_out!r} is unknown; choose one of {get_args(ReadOut)}")
    if read_out == "guide" and net.segmenter is None:
        raise ValueError("this model has no q(y | x) to read; choose 'prior' or 'posterior'")

    def ask(view: Tensor) -> Tensor:
        return _probabilities_and_styles(net, view, _draw(net, view, samples), read_out)

    probabilities, styles = _asked(net, x, samples, views, batch_size, ask).unbind(1)
    likeliest = probabilities.argmax(1, keepdim=True)
    return Answer(probabilities, styles, styles.gather(1, likeliest).squeeze(1))


@torch.no_grad()
def predict(
    net: StitchNet, x: Tensor, *, samples: int = 1, views: int = 1, batch_size: int = 8
) -> Tensor:
    """The label probabilities of :func:`segment` alone, without the work that styles take.

    Args:
        net: a trained model; asked in evaluation mode, left as it was.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: as for :func:`segment`.
        views: as for :func:`segment`.
        batch_size: slices at a time.

    Returns:
        q(y | x) of a model that has it, else p(y | z), (N, K, H, W); ``argmax(1)`` are the labels.

    Raises:
        ValueError: as :func:`segment`.
    """

    def ask(view: Tensor) -> Tensor:
        if net.segmenter is not None:
            return net.log_q(view).exp().movedim(-1, 1)
        draws = _draw(net, view, samples)
        return torch.stack([net.log_pi(z1).exp() for z1 in draws]).mean(0).movedim(-1, 1)

    return _asked(net, x, samples, views, batch_size, ask)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw by ``seed`` within; afterwards the global generators are as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def style_gaps(styles: Tensor) -> dict[str, float]:
    """Mean absolute difference of mean styles (..., K), for each pair of labels, in grey units.

    0 means that the styles have collapsed into one.
    """
    return {
        f"{LABELS[i]}-{LABELS[j]}": float((styles[..., i] - styles[..., j]).abs().mean())
        for i, j in itertools.combinations(range(len(LABELS)), 2)
    }


def _asked(
    net: StitchNet,
    x: Tensor,
    samples: int,
    views: int,
    batch_size: int,
    ask: Callable[[Tensor], Tensor],
) -> Tensor:
    """What ``ask`` says of the slices, a batch of them at a time, averaged over views."""
    if samples < 0 or batch_size < 1:
        raise ValueError("samples must be at least 0 and batch_size at least 1")
    if not x.is_floating_point() or not ((x >= 0) & (x <= 1)).all():
        raise ValueError(
            "slices must be floating-point grey values in [0, 1]: window and scale them first"
        )
    was_training = net.training
    net.eval()
    parts = []
    try:
        for part in x.split(batch_size):
            with net.svae.one_pass():
                parts.append(averaged(ask, part, views))
    finally:
        net.train(was_training)
    return torch.cat(parts)


def _draw(net: StitchNet, x: Tensor, samples: int) -> list[Tensor]:
    """Draws of z1 from q(z | x); its mean for none."""
    with nullcontext() if samples else AtMean():
        return [net.guide(x) for _ in range(max(samples, 1))]


def _probabilities_and_styles(
    net: StitchNet, x: Tensor, draws: list[Tensor], read_out: ReadOut
) -> Tensor:
    """Averages over the draws, one beside the other: (N, 2, K, H, W)."""
    probabilities, styles = [], []
    for z1 in draws:
        picture = net.picture(z1)
        if read_out == "guide":
            p = net.log_q(x).exp()
        elif read_out == "prior":
            p = picture.log_pi.exp()
        else:
            p = net.log_posterior(z1, x).softmax(-1)
        probabilities.append(p.movedim(-1, 1))
        styles.append(picture.styles.mean.movedim(-1, 1))
    return torch.stack([torch.stack(t).mean(0) for t in (probabilities, styles)], 1)
