"""Pictures that the model draws: of a slice's posterior, of the prior, and between the two.

All of them are seeded by torch's global generator, see :func:`~pyro_stitchnet.posterior.seeded`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from pyro_stitchnet.model.distributions import Stitched, pick
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS, check_size
from pyro_stitchnet.posterior._queries import (
    AtMean,
    Temperature,
    Tempered,
    asking,
    check_slices,
    draws_of_z,
)
from pyro_stitchnet.posterior.segmentation import ReadOut, chosen_read_out, read
from pyro_stitchnet.presets import Objective

__all__ = ["Draws", "between", "from_prior", "level_effects", "redrawn", "sample"]


@dataclass(frozen=True)
class Draws:
    """S pictures of each of N slices.

    Attributes:
        labels: a label a pixel, int64 (S, N, H, W).
        styles: grey values of the four styles, (S, N, K, H, W).
        stitched: at each pixel the style that its label picks, (S, N, H, W).
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
    read_out: ReadOut | None = None,
    batch_size: int = 8,
) -> Draws:
    """Draw labels, styles and reconstructions of slices from their posterior given x.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: draws of z from q(z | x), one picture each.
        noise: draw the label and the grey value of every pixel too. Without, a pixel takes its
            likeliest label and each style's mean given z, so that pictures differ by z alone.
        read_out: of the labels, as for :func:`~pyro_stitchnet.posterior.segment`.
        batch_size: slices at a time.

    Raises:
        ValueError: as :func:`~pyro_stitchnet.posterior.segment`.
    """
    how = chosen_read_out(net, read_out)

    def draw(part: Tensor) -> Iterator[Draws]:
        for z1 in draws_of_z(net, part, samples):
            yield _drawn(net.picture(z1), read(net, part, z1, how), noise)

    return _batched(net, x, samples, batch_size, draw)


def from_prior(
    net: StitchNet,
    number: int,
    size: tuple[int, int],
    *,
    temperature: Temperature = 1.0,
    noise: bool = False,
) -> Draws:
    """Draw pictures that the model has never seen: z5 ... z1 from p(z), y from p(y | z).

    Args:
        net: a trained model.
        number: of pictures, N; S is 1.
        size: their rows and columns, multiples of 32 (times the model's ``shrink``).
        temperature: factor on the spread of z around its mean, for all levels or by level (1 the
            finest, 5 the coarsest): ``{1: 0, 2: 0}`` draws the upper three alone.
        noise: as for :func:`sample`.

    Raises:
        ValueError: a size, the number or the temperature is out of range.
    """
    check_size((number, *size), net.config.shrink)
    with asking(net):
        return _stacked([_prior_picture(net, (number, *size), {}, temperature, noise)])


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
    """Keep the coarse levels of slices and draw the fine ones anew from the prior given these.

    What the pictures of level n have in common, the levels above n hold.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        level: the highest level to draw anew: 0 keeps all, 5 none.
        samples: pictures of each slice.
        temperature: of the levels drawn anew, as for :func:`from_prior`.
        noise: as for :func:`sample`.
        batch_size: slices at a time.

    Raises:
        ValueError: as :func:`sample`, or there is no such level.
    """
    if not 0 <= level <= LEVELS:
        raise ValueError(f"z has the levels 1 to {LEVELS} (0 keeps all), not {level}")

    def draw(part: Tensor) -> Iterator[Draws]:
        for _ in range(samples):
            with net.svae.one_draw():
                trace = poutine.trace(net.guide).get_trace(part)
                kept = {z: trace.nodes[z]["value"] for z in _sites(level + 1)}
                yield _prior_picture(net, tuple(part.shape), kept, temperature, noise)

    return _batched(net, x, samples, batch_size, draw)


def between(net: StitchNet, x: Tensor, steps: int = 7) -> Draws:
    """Pictures on the straight line in z from each slice to the next one.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], N at least 2, on the model's device; one batch.
        steps: S pictures of each of the N - 1 pairs, the ends included.

    Raises:
        ValueError: as :func:`sample`, or there are fewer than two slices or steps.
    """
    check_slices(net, x)
    if len(x) < 2 or steps < 2:
        raise ValueError(f"{len(x)} slices and {steps} steps; give at least 2 of each")
    pictures = []
    with asking(net):
        with AtMean():
            trace = poutine.trace(net.guide).get_trace(x)
        zs = {z: trace.nodes[z]["value"] for z in _sites(1)}
        for t in torch.linspace(0, 1, steps).tolist():
            given = {name: (1 - t) * z[:-1] + t * z[1:] for name, z in zs.items()}
            shape = (len(x) - 1, *x.shape[1:])
            pictures.append(_prior_picture(net, shape, given, 0.0, False))
    return _stacked(pictures)


def level_effects(net: StitchNet, x: Tensor, samples: int = 8) -> dict[int, dict[str, float]]:
    """How much of a picture changes when the levels of z up to n are drawn anew.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: pictures of each slice and level.

    Returns:
        By level, from 0 (all kept: two draws of the posterior): ``grey``, the mean absolute
        difference of the stitched picture to that of another draw of the posterior, in grey units,
        and ``labels``, the share of pixels whose likeliest label differs.

    Raises:
        ValueError: as :func:`redrawn`.
    """
    reference = redrawn(net, x, 0, samples)
    found = {}
    for level in range(LEVELS + 1):
        anew = redrawn(net, x, level, samples)
        found[level] = {
            "grey": float((anew.stitched - reference.stitched).abs().mean()),
            "labels": float((anew.labels != reference.labels).float().mean()),
        }
    return found


def _batched(
    net: StitchNet,
    x: Tensor,
    samples: int,
    batch_size: int,
    draw: Callable[[Tensor], Iterable[Draws]],
) -> Draws:
    """The pictures that ``draw`` makes of the slices, a batch of them at a time."""
    if samples < 1 or batch_size < 1:
        raise ValueError("samples and batch_size must be at least 1")
    check_slices(net, x)
    parts = []
    for part in x.split(batch_size):
        with asking(net):
            parts.append(_stacked(draw(part)))
    return Draws(*(torch.cat(maps, 1) for maps in zip(*map(_maps, parts), strict=True)))


def _sites(lowest: int) -> list[str]:
    """The sites of z from a level upwards."""
    return [f"z{level}" for level in range(lowest, LEVELS + 1)]


def _prior_picture(
    net: StitchNet,
    shape: tuple[int, ...],
    given: dict[str, Tensor],
    temperature: Temperature,
    noise: bool,
) -> Draws:
    """One picture of each slice from p(z | the levels given)."""
    program = poutine.condition(net.svae.model, data=given)
    with Tempered(temperature), pyro.plate("slices", shape[0], dim=-3):
        picture = net.picture(program(shape, Objective()))
    return _drawn(picture, picture.log_pi.exp(), noise)


def _drawn(picture: Stitched, probabilities: Tensor, noise: bool) -> Draws:
    """Labels (N, H, W) of ``probabilities`` (N, H, W, K), and the styles, stitched by them."""
    if noise:
        labels = dist.Categorical(probs=probabilities).sample()
        styles = picture.styles.sample()
    else:
        labels, styles = probabilities.argmax(-1), picture.styles.mean
    return Draws(labels, styles.movedim(-1, 1), pick(styles, labels))


def _stacked(pictures: Iterable[Draws]) -> Draws:
    return Draws(*(torch.stack(maps) for maps in zip(*map(_maps, pictures), strict=True)))


def _maps(draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    return draws.labels, draws.styles, draws.stitched
