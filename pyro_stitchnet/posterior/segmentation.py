"""The segmentation of a slice by each of its read-outs, with the mean of its styles."""

import itertools
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior._queries import draws_of_z, in_batches, mean

__all__ = ["Answer", "ReadOut", "chosen_read_out", "predict", "read", "segment", "style_gaps"]

ReadOut = Literal["guide", "prior", "posterior"]
"""What a segmentation is read from: q(y | x), p(y | z) or p(y | x, z)."""


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
            :func:`~pyro_stitchnet.posterior.views.averaged`; each costs as much as the first.
        read_out: ``"guide"`` is q(y | x), for a model that has it; ``"prior"`` is p(y | z);
            ``"posterior"`` is p(y | x, z), Bayes' rule through the styles. By default the last for
            a model that has q(y | x), else p(y | z).
        batch_size: slices at a time.

    Raises:
        ValueError: ``x`` is not in [0, 1], a size is not a multiple of 32 (times the model's
            ``shrink``), or an option is out of its range.
    """
    how = chosen_read_out(net, read_out)

    def ask(view: Tensor) -> Tensor:
        draws = draws_of_z(net, view, samples)
        return mean(
            torch.stack([read(net, view, z1, how), net.picture(z1).styles.mean], 1) for z1 in draws
        ).movedim(-1, 2)

    answers = in_batches(net, x, ask, samples=samples, views=views, batch_size=batch_size)
    probabilities, styles = answers.unbind(1)
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
        draws = draws_of_z(net, view, samples)
        return mean(net.log_pi(z1).exp() for z1 in draws).movedim(-1, 1)

    return in_batches(net, x, ask, samples=samples, views=views, batch_size=batch_size)


def style_gaps(styles: Tensor) -> dict[str, float]:
    """Mean absolute difference of mean styles (..., K), for each pair of labels, in grey units.

    0 means that the styles have collapsed into one.
    """
    return {
        f"{LABELS[i]}-{LABELS[j]}": float((styles[..., i] - styles[..., j]).abs().mean())
        for i, j in itertools.combinations(range(len(LABELS)), 2)
    }


def chosen_read_out(net: StitchNet, read_out: ReadOut | None) -> ReadOut:
    """The read-out that is meant, the model's own by default.

    Raises:
        ValueError: there is no such read-out, or the model does not have it.
    """
    read_out = read_out or ("posterior" if net.segmenter else "prior")
    if read_out not in get_args(ReadOut):
        raise ValueError(f"read_out {read_out!r} is unknown; choose one of {get_args(ReadOut)}")
    if read_out == "guide" and net.segmenter is None:
        raise ValueError("this model has no q(y | x) to read; choose 'prior' or 'posterior'")
    return read_out


def read(net: StitchNet, x: Tensor, z1: Tensor, read_out: ReadOut) -> Tensor:
    """The label probabilities of slices (N, H, W) given one draw of z: (N, H, W, K)."""
    if read_out == "guide":
        return net.log_q(x).exp()
    if read_out == "prior":
        return net.picture(z1).log_pi.exp()
    log_p = net.log_posterior(z1, x)
    if net.segmenter is not None:
        return log_p.exp()  # it is normalised already
    return log_p.movedim(-1, 0).softmax(0).movedim(0, -1)  # faster than over so short a last axis
