"""Distances between the outlines of true and predicted lesions."""

import warnings

import torch
from torch import Tensor

from pyro_stitchnet.metrics.scores import GROUPS, LESION_GROUPS

__all__ = ["hausdorff95"]


def hausdorff95(truth: Tensor, predicted: Tensor) -> dict[str, list[float]]:
    """Return the 95th percentile Hausdorff distance of each lesion in each slice, in pixels.

    Needs MONAI (extra ``benchmark``).

    Args:
        truth: label maps (N, H, W).
        predicted: label maps (N, H, W).

    Returns:
        For "GGO" and "CON", N distances; NaN where the true or the predicted lesion is absent.
    """
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    by_lesion = {}
    for lesion in LESION_GROUPS:
        masks = [torch.isin(y, torch.tensor(GROUPS[lesion])) for y in (predicted, truth)]
        both = masks[0].flatten(1).any(1) & masks[1].flatten(1).any(1)
        distances = torch.full((len(truth),), float("nan"))
        if both.any():
            p, t = (mask[both].unsqueeze(1).float() for mask in masks)
            with warnings.catch_warnings():
                # MONAI 1.5 uses its own deprecated argument.
                warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
                hd95 = compute_hausdorff_distance(p, t, include_background=True, percentile=95)
            distances[both] = hd95[:, 0].float()
        by_lesion[lesion] = distances.tolist()
    return by_lesion
