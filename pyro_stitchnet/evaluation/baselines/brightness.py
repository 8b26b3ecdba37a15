"""GGO and consolidation separated by grey value, inside a network's own infection mask."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchvision.transforms.v2.functional import gaussian_blur

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.evaluation.baselines.base import Predictor
from pyro_stitchnet.labels import CONSOLIDATION, GGO, LABELS, LESIONS
from pyro_stitchnet.model.levels import TissueLevels

__all__ = ["splits"]

BLUR = 0.8  # pixels, standard deviation
TEMPER = 0.5  # exponent of the network's probability, which multiplies the Gaussians


def splits(probabilities: Predictor, labelled: Slices) -> dict[str, Predictor]:
    """Return predictors that label the lesions of another predictor by their grey values.

    ``threshold``: pixels that are labelled GGO or consolidation are consolidation if brighter than
    the threshold that best separates the two on the labelled slices (mean of both recalls).
    ``gaussian``: there, the probability to the power 1/2 times a Gaussian of brightness per lesion,
    with mean and deviation of the labelled slices. Brightness is blurred by .8 pixel.
    ``levels``: there, Gaussians of grey relative to the slice's tissue levels, see
    :class:`~pyro_stitchnet.model.levels.TissueLevels`. These simple rules are the project's own; a
    generative likelihood must beat them.

    Args:
        probabilities: the other predictor.
        labelled: labelled training slices. Without both lesions nothing is returned.
    """
    complete = labelled.take(np.flatnonzero(labelled.complete))
    truth, grey = complete.labels(), _blurred(complete.images)
    lesions = [grey[truth == label] for label in LESIONS]
    if min(map(len, lesions)) < 2:
        return {}
    cut = _best_cut(*lesions)
    relative = TissueLevels().to(complete.images.device)
    relative.fit(complete.images, one_hot(truth, len(LABELS)).bool())
    moments = [(float(g.mean()), float(g.std()) + 1e-3) for g in lesions]

    def threshold(x: Tensor) -> Tensor:
        dense = (_blurred(x) > cut).float()
        return _split(probabilities(x), torch.stack([1 - dense, dense], 1))

    def gaussian(x: Tensor) -> Tensor:
        p, grey = probabilities(x), _blurred(x)
        scores = [
            p[:, label].clamp_min(1e-6).log() * TEMPER
            - ((grey - mean) / deviation).square() / 2
            - torch.tensor(deviation).log().to(grey)
            for label, (mean, deviation) in zip(LESIONS, moments, strict=True)
        ]
        return _split(p, torch.stack(scores, 1).softmax(1))

    def levels(x: Tensor) -> Tensor:
        p = probabilities(x)
        scores = relative.to(x.device)(x, p.movedim(1, -1)).movedim(-1, 1)
        return _split(p, scores.softmax(1))

    return {"threshold": threshold, "gaussian": gaussian, "levels": levels}


def _blurred(x: Tensor) -> Tensor:
    return gaussian_blur(x.unsqueeze(1), [5, 5], [BLUR, BLUR]).squeeze(1)


def _best_cut(ggo: Tensor, consolidation: Tensor) -> float:
    """Return the cut with the best mean of GGO's share below and consolidation's share above."""
    cuts = torch.linspace(0, 1, 256, device=ggo.device)
    below = [torch.searchsorted(g.sort().values, cuts) / len(g) for g in (ggo, consolidation)]
    return float(cuts[(below[0] - below[1]).argmax()])


def _split(p: Tensor, shares: Tensor) -> Tensor:
    """Reorder the probabilities of both lesions by ``shares`` where a lesion is likeliest.

    Args:
        p: the network's probabilities, (N, K, H, W).
        shares: of GGO and consolidation, (N, 2, H, W). The lesion with the larger share gets the
            larger of the network's two probabilities, so the infection mask does not change.
    """
    lesions = list(LESIONS)
    infected = torch.isin(p.argmax(1, keepdim=True), torch.tensor(lesions, device=p.device))
    high, low = p[:, lesions].amax(1), p[:, lesions].amin(1)
    dense = shares[:, 1] > shares[:, 0]
    new = p.clone()
    new[:, GGO] = torch.where(dense, low, high)
    new[:, CONSOLIDATION] = torch.where(dense, high, low)
    return torch.where(infected, new, p)
