"""Uncertainty of a segmentation, pixel by pixel, and its kinds."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior._queries import draws_of_z, in_batches, mean
from pyro_stitchnet.posterior.options import ReadOut, ReadOutOptions
from pyro_stitchnet.posterior.segmentation import check_read_out, read

__all__ = ["Uncertainty", "entropy", "uncertainty"]


@dataclass(frozen=True)
class Uncertainty:
    """Label probabilities of N slices and their uncertainty; entropies in nats, at most log 4.

    Attributes:
        probabilities: of each label, averaged over the draws, (N, K, H, W).
        entropy: of these, (N, H, W): the total uncertainty.
        expected_entropy: mean entropy of a single draw, (N, H, W): the part that does not depend on
            z or on the view (aleatoric).
        mutual_information: the difference, (N, H, W): the variation between draws and views
            (epistemic, as far as z and views capture it).
        disagreement: between the model's read-outs, (N, H, W) in [0, 1]: the mean total variation
            distance of two of them, 0 where all agree.
    """

    probabilities: Tensor
    entropy: Tensor
    expected_entropy: Tensor
    mutual_information: Tensor
    disagreement: Tensor

    @property
    def labels(self) -> Tensor:
        """The likeliest label, int64 (N, H, W)."""
        return self.probabilities.argmax(1)


def entropy(probabilities: Tensor) -> Tensor:
    """-SUM_k p_k log p_k of probabilities (N, K, ...), in nats: (N, ...)."""
    return -torch.xlogy(probabilities, probabilities).sum(1)


def uncertainty(net: StitchNet, x: Tensor, options: ReadOutOptions | None = None) -> Uncertainty:
    """Segment slices and compute the uncertainty of their labels.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        options: as for :func:`~pyro_stitchnet.posterior.segment`; 8 samples by default. Mutual
            information needs at least 2 draws or views; each view counts as a draw.

    Raises:
        ValueError: as :func:`~pyro_stitchnet.posterior.segment`, or ``samples`` is 0.
    """
    options = options or ReadOutOptions(samples=8)
    check_read_out(net, options.read_out)
    read_outs: list[ReadOut] = ["prior", "posterior"]
    if net.classifier is not None:
        read_outs.append("guide")
    if options.samples < 1:
        raise ValueError("samples must be at least 1: uncertainty is over draws of z")

    def query(view: Tensor) -> Tensor:
        def one_draw(z1: Tensor) -> Tensor:
            """Each read-out's probabilities, and the entropy of the chosen one."""
            p = {out: read(net, view, z1, out).movedim(-1, 1) for out in read_outs}
            return torch.cat([*p.values(), entropy(p[options.read_out]).unsqueeze(1)], 1)

        return mean(one_draw(z1) for z1 in draws_of_z(net, view, options.samples))

    maps = in_batches(
        net,
        x,
        query,
        views=options.views,
        batch_size=options.batch_size,
        precision=options.precision,
    )
    *by_read_out, expected = maps.split([len(LABELS)] * len(read_outs) + [1], 1)
    p, expected = by_read_out[read_outs.index(options.read_out)], expected.squeeze(1)
    total = entropy(p)
    pairs = [(a - b).abs().sum(1) / 2 for a, b in itertools.combinations(by_read_out, 2)]
    return Uncertainty(
        probabilities=p,
        entropy=total,
        expected_entropy=expected,
        mutual_information=(total - expected).clamp_min(0),
        disagreement=torch.stack(pairs).mean(0),
    )
