"""How far apart the outlines of a true and a predicted lesion are."""

import warnings

import torch
from torch import Tensor

from pyro_stitchnet.evaluation.metrics.scores import LESIONS

__all__ = ["hausdorff95"]


def hausdorff95(truth: Tensor, predicted: Tensor) -> dict[str, list[float]]:
    """The 95th percentile Hausdorff distance, in pixels, of GGO and of consolidation, a slice each.

    NaN where the lesion, or what is predicted of it, is absent. Needs MONAI, which the extra
    ``benchmark`` brings.

    Args:
        truth: label maps (N, H, W).
        predicted: the same.
    """
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    found = {}
    for lesion in ("GGO", "CON"):
        masks = [torch.isin(y, torch.tensor(LESIONS[lesion])) for y in (predicted, truth)]
        there = [mask.flatten(1).any(1) for mask in masks]
        both = there[0] & there[1]
        distances = torch.full((len(truth),), float("nan"))
        if both.any():
            p, t = (mask[both].unsqueeze(1).float() for mask in masks)
            with warnings.catch_warnings():
                # MONAI 1.5 calls a function of its own by an argument that it has deprecated.
                warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
                measured = compute_hausdorff_distance(p, t, include_background=True, percentile=95)
            distances[both] = measured[:, 0].float()
        found[lesion] = distances.tolist()
    return found
