"""GGO and consolidation told apart by brightness, inside a network's own infection mask."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.baselines.base import Reading, Supervised
from pyro_stitchnet.labels import CONSOLIDATION, GGO

__all__ = ["SplitByBrightness"]

LESIONS = (GGO, CONSOLIDATION)
BLUR = 0.8  # pixels, standard deviation
TEMPER = 0.5  # exponent of the network's probability beside the Gaussians


class SplitByBrightness(Supervised):
    """A supervised network, and two readings of it that mind how dense a lesion is.

    ``threshold``: within what the network calls GGO or consolidation, consolidation is what is
    brighter than the value that best parts the two on the labelled slices (mean of both recalls).
    ``gaussian``: there, the network's probability to the power 1/2 times a Gaussian of brightness
    for each, with mean and deviation of the labelled slices. Brightness is blurred by .8 pixel.
    The project's own, as the cheap trick that a generative likelihood must beat.
    """

    def readings(self, labelled: Slices) -> Mapping[str, Reading]:
        """The network itself, ``threshold`` and ``gaussian``."""
        told = labelled.take(np.flatnonzero(labelled.complete))
        truth, grey = told.labels(), _blurred(told.images)
        lesions = [grey[truth == label] for label in LESIONS]
        if min(map(len, lesions)) < 2:
            return {"": self.predict}
        cut = _best_cut(*lesions)
        moments = [(float(g.mean()), float(g.std()) + 1e-3) for g in lesions]

        def threshold(x: Tensor) -> Tensor:
            dense = (_blurred(x) > cut).float()
            return _split(self.predict(x), torch.stack([1 - dense, dense], 1))

        def gaussian(x: Tensor) -> Tensor:
            p, grey = self.predict(x), _blurred(x)
            scores = [
                p[:, label].clamp_min(1e-6).log() * TEMPER
                - ((grey - mean) / deviation).square() / 2
                - torch.tensor(deviation).log().to(grey)
                for label, (mean, deviation) in zip(LESIONS, moments, strict=True)
            ]
            return _split(p, torch.stack(scores, 1).softmax(1))

        return {"": self.predict, "threshold": threshold, "gaussian": gaussian}


def _blurred(x: Tensor) -> Tensor:
    return gaussian_blur(x.unsqueeze(1), [5, 5], [BLUR, BLUR]).squeeze(1)


def _best_cut(ggo: Tensor, consolidation: Tensor) -> float:
    """The value with the best mean of the share of GGO below and of consolidation above it."""
    cuts = torch.linspace(0, 1, 256, device=ggo.device)
    below = [torch.searchsorted(g.sort().values, cuts) / len(g) for g in (ggo, consolidation)]
    return float(cuts[(below[0] - below[1]).argmax()])


def _split(p: Tensor, shares: Tensor) -> Tensor:
    """Where a lesion is the likeliest label, all that both lesions have goes by ``shares``.

    Args:
        p: the network's probabilities, (N, K, H, W).
        shares: of GGO and consolidation, (N, 2, H, W). The likelier takes the greater of the
            network's two and the rest of both is dealt out, so the infection mask stays as it is.
    """
    lesions = list(LESIONS)
    infected = torch.isin(p.argmax(1, keepdim=True), torch.tensor(lesions, device=p.device))
    high, low = p[:, lesions].amax(1), p[:, lesions].amin(1)
    dense = shares[:, 1] > shares[:, 0]
    new = p.clone()
    new[:, GGO] = torch.where(dense, low, high)
    new[:, CONSOLIDATION] = torch.where(dense, high, low)
    return torch.where(infected, new, p)
