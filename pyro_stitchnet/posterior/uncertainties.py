"""How sure a segmentation is, pixel by pixel, and of what kind the doubt is."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior._queries import draws_of_z, in_batches, mean
from pyro_stitchnet.posterior.segmentation import ReadOut, chosen_read_out, read

__all__ = ["Uncertainty", "entropy", "uncertainty"]


@dataclass(frozen=True)
class Uncertainty:
    """The labels of N slices, and the doubt about them; entropies in nats, at most log 4 = 1.39.

    Attributes:
        probabilities: of each label, averaged over the draws, (N, K, H, W).
        entropy: of these, (N, H, W): all of the doubt.
        expected_entropy: the mean entropy of a single draw, (N, H, W): what no knowledge of z and
            no other view of the slice would settle (aleatoric).
        mutual_information: the rest, (N, H, W): how much the draws contradict each other
            (epistemic, as far as z and views tell).
        disagreement: between the model's read-outs, (N, H, W) in [0, 1]: the mean total variation
            distance of two of them, 0 where all say the same.
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


def uncertainty(
    net: StitchNet,
    x: Tensor,
    *,
    samples: int = 8,
    views: int = 1,
    read_out: ReadOut | None = None,
    batch_size: int = 8,
) -> Uncertainty:
    """Segment slices, and say how sure that is.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: draws of z, at least 2 to contradict each other.
        views: flips and quarter turns; an answer to one of them counts as a draw.
        read_out: whose probabilities, as for :func:`~pyro_stitchnet.posterior.segment`.
        batch_size: slices at a time.

    Raises:
        ValueError: as :func:`~pyro_stitchnet.posterior.segment`.
    """
    how = chosen_read_out(net, read_out)
    outs: list[ReadOut] = ["prior", "posterior"]
    if net.segmenter is not None:
        outs.append("guide")
    if samples < 1:
        raise ValueError("samples must be at least 1: uncertainty is about draws of z")

    def ask(view: Tensor) -> Tensor:
        def told(z1: Tensor) -> Tensor:
            """Each read-out's probabilities, and the entropy of the one that is meant."""
            said = {out: read(net, view, z1, out).movedim(-1, 1) for out in outs}
            return torch.cat([*said.values(), entropy(said[how]).unsqueeze(1)], 1)

        return mean(told(z1) for z1 in draws_of_z(net, view, samples))

    found = in_batches(net, x, ask, samples=samples, views=views, batch_size=batch_size)
    *read_outs, expected = found.split([len(LABELS)] * len(outs) + [1], 1)
    p, expected = read_outs[outs.index(how)], expected.squeeze(1)
    whole = entropy(p)
    pairs = [(a - b).abs().sum(1) / 2 for a, b in itertools.combinations(read_outs, 2)]
    return Uncertainty(
        probabilities=p,
        entropy=whole,
        expected_entropy=expected,
        mutual_information=(whole - expected).clamp_min(0),
        disagreement=torch.stack(pairs).mean(0),
    )
