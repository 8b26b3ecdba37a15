"""Slices drawn by the model: from the posterior of a slice, from the prior, and between slices.

All draws use torch's global generator; see :func:`~pyro_stitchnet.posterior.seeded`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_stitchnet.model.checks import check_slices
from pyro_stitchnet.model.distributions import Picked, Stitched, pick
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS, check_size
from pyro_stitchnet.posterior._queries import (
    AtMean,
    Temperature,
    Tempered,
    draws_of_z,
    evaluating,
    trace_z,
)
from pyro_stitchnet.posterior.options import ReadOut
from pyro_stitchnet.posterior.segmentation import check_read_out, read

__all__ = ["Draws", "between", "from_prior", "level_effects", "redrawn", "sample"]


@dataclass(frozen=True)
class Draws:
    """S drawn images for each of N slices.

    Attributes:
        labels: the label of each pixel, int64 (S, N, H, W).
        styles: grey values of the four styles, (S, N, K, H, W); for draws given a slice with its
            vessels and noise, see
            :meth:`~pyro_stitchnet.model.distributions.Stitched.styles_given`.
        stitched: the drawn images, (S, N, H, W): each pixel from the style of its label; without
            noise, from the mean of that style given z.
    """

    labels: Tensor
    styles: Tensor
    stitched: Tensor


def sample(
    net: StitchNet,
    x: Tensor,
    samples: int = 8,
    *,
    noise: bool = False,
    read_out: ReadOut = "posterior",
    batch_size: int = 8,
) -> Draws:
    """Draw labels, styles and reconstructions of slices from their posterior given x.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: S, draws of z from q(z | x), one image each.
        noise: whether to draw the label of every pixel too, y from p(y | x, z). The style that y
            picks is then x itself, so that the stitched images equal the slice. Without noise a
            pixel takes its likeliest label, and the stitched images the means of the styles given
            z, so that they differ by z alone.
        read_out: of the labels, as in :class:`~pyro_stitchnet.posterior.ReadOutOptions`.
        batch_size: slices per forward pass.

    Raises:
        ValueError: as :func:`~pyro_stitchnet.posterior.segment`.
    """
    check_read_out(net, read_out)

    def draw(part: Tensor) -> Iterator[Draws]:
        for z1 in draws_of_z(net, part, samples):
            yield _stitch(net.picture(z1), read(net, part, z1, read_out), noise, part)

    return _in_batches(net, x, samples, batch_size, draw)


def from_prior(
    net: StitchNet,
    number: int,
    size: tuple[int, int],
    *,
    temperature: Temperature = 1.0,
    noise: bool = False,
) -> Draws:
    """Draw new slices: z5 ... z1 from p(z), y from p(y | z).

    Args:
        net: a trained model.
        number: of slices, N; S is 1.
        size: rows and columns, multiples of 32 (times the model's ``downsampling``).
        temperature: factor on the spread of z around its mean, for all levels or by level (1 is the
            finest, 5 the coarsest): ``{1: 0, 2: 0}`` draws the three coarsest levels only.
        noise: whether to draw the label and the grey value of every pixel too.

    Raises:
        ValueError: a size, the number or the temperature is out of range, or the model has no
            labels.
    """
    check_size((number, *size), net.config.downsampling)
    with evaluating(net):
        return _stack([_draw_prior(net, (number, *size), {}, temperature, noise)])


def redrawn(
    net: StitchNet,
    x: Tensor,
    level: int,
    samples: int = 8,
    *,
    temperature: Temperature = 1.0,
    noise: bool = False,
    batch_size: int = 8,
) -> Draws:
    """Keep the coarse levels of z of slices, and draw the fine levels from the prior given them.

    The levels above ``level`` determine what the drawn images have in common.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        level: the highest level to draw from the prior: 0 keeps all levels, 5 none.
        samples: S, images per slice.
        temperature: of the levels from the prior, as for :func:`from_prior`.
        noise: as for :func:`from_prior`.
        batch_size: slices per forward pass.

    Raises:
        ValueError: as :func:`sample`, or ``level`` is out of range.
    """
    if not 0 <= level <= LEVELS:
        raise ValueError(f"z has the levels 1 to {LEVELS} (0 keeps all), not {level}")

    def draw(part: Tensor) -> Iterator[Draws]:
        for _ in range(samples):
            with net.memo.one_draw():
                trace = trace_z(net, part)
                kept = {z: trace.nodes[z]["value"] for z in _sites(level + 1)}
                yield _draw_prior(net, tuple(part.shape), kept, temperature, noise)

    return _in_batches(net, x, samples, batch_size, draw)


def between(net: StitchNet, x: Tensor, steps: int = 7) -> Draws:
    """Draw images on the straight line in z from each slice to the next one.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], N at least 2, on the model's device; one batch.
        steps: S, images per pair of slices, both ends included.

    Returns:
        Draws of the N - 1 pairs.

    Raises:
        ValueError: as :func:`sample`, or there are fewer than two slices or steps.
    """
    check_slices(net, x)
    if len(x) < 2 or steps < 2:
        raise ValueError(f"{len(x)} slices and {steps} steps; give at least 2 of each")
    draws = []
    with evaluating(net):
        with AtMean():
            trace = trace_z(net, x)
        zs = {z: trace.nodes[z]["value"] for z in _sites(1)}
        for t in torch.linspace(0, 1, steps).tolist():
            given = {name: (1 - t) * z[:-1] + t * z[1:] for name, z in zs.items()}
            shape = (len(x) - 1, *x.shape[1:])
            draws.append(_draw_prior(net, shape, given, 0.0, False))
    return _stack(draws)


def level_effects(net: StitchNet, x: Tensor, samples: int = 8) -> dict[int, dict[str, float]]:
    """Measure how much an image changes when the levels of z up to n come from the prior.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: images per slice and level.

    Returns:
        Differences from a draw of the posterior by level, from 0 (another draw of the posterior):
        ``grey``, the mean absolute difference of the stitched images in grey units, and
        ``labels``, the share of pixels whose likeliest label differs.

    Raises:
        ValueError: as :func:`redrawn`.
    """
    reference = redrawn(net, x, 0, samples)
    effects = {}
    for level in range(LEVELS + 1):
        draws = redrawn(net, x, level, samples)
        effects[level] = {
            "grey": float((draws.stitched - reference.stitched).abs().mean()),
            "labels": float((draws.labels != reference.labels).float().mean()),
        }
    return effects


def _in_batches(
    net: StitchNet,
    x: Tensor,
    samples: int,
    batch_size: int,
    draw: Callable[[Tensor], Iterable[Draws]],
) -> Draws:
    """Apply ``draw`` to the slices in batches; it yields S draws of a batch."""
    if samples < 1 or batch_size < 1:
        raise ValueError("samples and batch_size must be at least 1")
    check_slices(net, x)
    parts = []
    for part in x.split(batch_size):
        with evaluating(net):
            parts.append(_stack(draw(part)))
    return Draws(*(torch.cat(maps, 1) for maps in zip(*map(_maps, parts), strict=True)))


def _sites(lowest: int) -> list[str]:
    """Names of the sites of z from a level upwards."""
    return [f"z{level}" for level in range(lowest, LEVELS + 1)]


def _draw_prior(
    net: StitchNet,
    shape: tuple[int, ...],
    given: dict[str, Tensor],
    temperature: Temperature,
    noise: bool,
) -> Draws:
    """Draw one image per slice from p(z | the levels given)."""
    check_read_out(net, "prior")  # refuses a model without labels
    program = poutine.condition(net.svae.model, data=given)
    with Tempered(temperature), pyro.plate("slices", shape[0], dim=-3):
        picture = net.picture(program(shape, net.objective))
    return _stitch(picture, picture.log_pi.exp(), noise)


def _stitch(
    picture: Stitched, probabilities: Tensor, noise: bool, x: Tensor | None = None
) -> Draws:
    """Choose labels by ``probabilities`` (N, H, W, K), and stitch the styles by them.

    The styles are those of the slices ``x`` (N, H, W), if given. With noise these are stitched too.
    """
    if not noise:
        labels, means = probabilities.argmax(-1), picture.styles.mean
        styles = means if x is None else picture.styles_given(x, probabilities)
        return Draws(labels, styles.movedim(-1, 1), pick(means, labels))
    labels = dist.Categorical(probs=probabilities).sample()
    x = Picked(labels, picture.styles).sample() if x is None else x
    certain = one_hot(labels, probabilities.shape[-1]).to(probabilities)
    styles = picture.styles_given(x, certain).movedim(-1, 1)
    # The style that a label picks is the slice, outliers included.
    return Draws(labels, styles.scatter(1, labels.unsqueeze(1), x.unsqueeze(1).to(styles)), x)


def _stack(draws: Iterable[Draws]) -> Draws:
    return Draws(*(torch.stack(maps) for maps in zip(*map(_maps, draws), strict=True)))


def _maps(draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    return draws.labels, draws.styles, draws.stitched
