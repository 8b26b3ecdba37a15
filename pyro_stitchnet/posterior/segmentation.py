"""Label probabilities of slices by each read-out, and their styles."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior._queries import draws_of_z, in_batches, mean
from pyro_stitchnet.posterior.options import ReadOut, ReadOutOptions

__all__ = ["Answer", "check_read_out", "needs_z", "probabilities", "read", "segment", "style_gaps"]


@dataclass(frozen=True)
class Answer:
    """The segmentation of N slices and their styles.

    Attributes:
        probabilities: of each label, (N, K, H, W).
        styles: of each label, (N, K, H, W): the slice as if all of it were one tissue, with the
            slice's own vessels and noise; see
            :meth:`~pyro_stitchnet.model.distributions.Stitched.styles_given`.
        style_means: mean of each style given z alone, (N, K, H, W).
    """

    probabilities: Tensor
    styles: Tensor
    style_means: Tensor

    @property
    def labels(self) -> Tensor:
        """The likeliest label, int64 (N, H, W)."""
        return self.probabilities.argmax(1)

    @property
    def stitched(self) -> Tensor:
        """The reconstruction: at each pixel the mean style of its likeliest label, (N, H, W)."""
        return self.style_means.gather(1, self.labels.unsqueeze(1)).squeeze(1)


@torch.no_grad()
def segment(net: StitchNet, x: Tensor, options: ReadOutOptions | None = None) -> Answer:
    """Segment slices and draw their styles.

    z is drawn from torch's global generator. With ``samples=0`` each level takes its mean, which is
    repeatable; but the decoder was trained on draws, and its batch norm (in presets that have it)
    expects their spread.

    Only the probabilities are averaged over views: the styles are those of the slices as they are.

    Args:
        net: a trained model; used in evaluation mode, its mode restored.
        x: slices (N, H, W) in [0, 1], on the model's device.
        options: read-out, samples, views, batch size and precision; ``decision``, ``least_patch``
            and ``seed`` are not used here.

    Raises:
        ValueError: ``x`` is not in [0, 1], a size is not a multiple of 32 (times the model's
            ``downsampling``), or the model lacks the read-out.
    """
    options = options or ReadOutOptions()
    check_read_out(net, options.read_out)
    batches: Iterator[Tensor] | None = None
    if options.views > 1 or not needs_z(net, options.read_out):
        p = probabilities(net, x, options).movedim(1, -1)
        batches = iter(p.split(options.batch_size))

    def query(part: Tensor) -> Tensor:
        known = next(batches) if batches else None

        def draw(z1: Tensor) -> Tensor:
            p = read(net, part, z1, options.read_out) if known is None else known
            picture = net.picture(z1)
            return torch.stack([p, picture.styles_given(part, p), picture.styles.mean], 1)

        return mean(map(draw, draws_of_z(net, part, options.samples))).movedim(-1, 2)

    answers = in_batches(net, x, query, batch_size=options.batch_size, precision=options.precision)
    return Answer(*answers.unbind(1))


@torch.no_grad()
def probabilities(net: StitchNet, x: Tensor, options: ReadOutOptions | None = None) -> Tensor:
    """The label probabilities of :func:`segment` alone, without the cost of the styles.

    Args:
        net: as for :func:`segment`.
        x: as for :func:`segment`.
        options: as for :func:`segment`.

    Returns:
        Probabilities (N, K, H, W); ``argmax(1)`` gives the likeliest labels.

    Raises:
        ValueError: as :func:`segment`.
    """
    options = options or ReadOutOptions()
    check_read_out(net, read_out := options.read_out)

    def query(view: Tensor) -> Tensor:
        if not needs_z(net, read_out):
            return read(net, view, None, read_out).movedim(-1, 1)
        draws = draws_of_z(net, view, options.samples)
        if read_out == "prior":
            return mean(net.log_pi(z1).exp() for z1 in draws).movedim(-1, 1)
        return mean(read(net, view, z1, read_out) for z1 in draws).movedim(-1, 1)

    return in_batches(
        net,
        x,
        query,
        views=options.views,
        batch_size=options.batch_size,
        precision=options.precision,
    )


def style_gaps(styles: Tensor) -> dict[str, float]:
    """Mean absolute difference of mean styles (..., K), for each pair of labels, in grey units.

    0 means that the styles have collapsed into one.
    """
    return {
        f"{LABELS[i]}-{LABELS[j]}": float((styles[..., i] - styles[..., j]).abs().mean())
        for i, j in itertools.combinations(range(len(LABELS)), 2)
    }


def check_read_out(net: StitchNet, read_out: ReadOut) -> None:
    """Refuse a read-out that the model does not have.

    Raises:
        ValueError: the model has no labels, or no classifier for "guide".
    """
    if not net.config.stitched:
        raise ValueError(
            "this model has no labels to read (the SVAE alone); use a StitchNet preset"
        )
    if read_out == "guide" and net.classifier is None:
        raise ValueError("this model has no q(y | x) to read; choose 'prior' or 'posterior'")


def needs_z(net: StitchNet, read_out: ReadOut) -> bool:
    """Whether a read-out depends on z."""
    return read_out == "prior" or net.classifier is None


def read(net: StitchNet, x: Tensor, z1: Tensor | None, read_out: ReadOut) -> Tensor:
    """The label probabilities of slices (N, H, W) given one draw of z: (N, H, W, K).

    ``z1`` may be None for a read-out that does not need z, which is computed once for all draws.
    """
    if not needs_z(net, read_out):
        without_z = net.log_q if read_out == "guide" else net.log_separated
        return net.memo.get(read_out, "slices", x, lambda: without_z(x).exp())
    assert z1 is not None
    if read_out == "prior":
        return net.picture(z1).log_pi.exp()
    log_p = net.log_posterior(z1, x)
    return log_p.movedim(-1, 0).softmax(0).movedim(0, -1)  # faster than over a short last axis
