"""The scores that choose the weights of a run."""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.metrics.scores import slice_scores
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import active_units, log_evidence, seeded

__all__ = ["active_levels", "bits_per_dimension", "validation_dice"]


def validation_dice(
    probabilities: Callable[[Tensor], Tensor], slices: Slices, device: torch.device
) -> tuple[float, dict[str, float]]:
    """Mean Dice (F1 of eq. 1) of each lesion over the slices where it is defined, and of both.

    A lesion that is on no slice and predicted on none counts 0 in the mean of both.

    Returns:
        The mean of both, and all three to log.
    """
    with seeded(0, device):  # the same draws of z at every validation
        labels = probabilities(slices.images.to(device)).argmax(1).cpu()
    mean = slice_scores(slices.labels(), labels).groupby("lesion")["f1"].mean()
    lesions = mean[["GGO", "CON"]]
    score = float(lesions.fillna(0).mean())
    return score, {
        "validation/dice_ggo": float(lesions["GGO"]),
        "validation/dice_consolidation": float(lesions["CON"]),
        "validation/dice": score,
    }


def active_levels(net: StitchNet | SliceVAE, slices: Slices) -> dict[str, float]:
    """Return the share of active units of each level, to log; nothing for a single slice."""
    if len(slices) < 2:
        return {}
    shares = active_units(net, slices.images.to(next(net.parameters()).device))
    return {f"active/z{level}": share for level, share in shares.items()}


def bits_per_dimension(net: StitchNet | SliceVAE, x: Tensor, samples: int = 1) -> Tensor:
    """Negative importance-weighted bound of 8-bit slices in bits per pixel, (N,).

    It needs a likelihood over the 256 grey levels; a density over [0, 1] is not comparable.

    Args:
        net: a model of slices whose likelihood is "discretised-logistic".
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: draws of z per slice; 1 gives the evidence lower bound.

    Raises:
        ValueError: the likelihood is a density.
    """
    if net.config.likelihood != "discretised-logistic":
        raise ValueError(
            f"bits per dimension need likelihood 'discretised-logistic', not "
            f"{net.config.likelihood!r}"
        )
    nats = log_evidence(net, x, samples)
    return -nats / x[0].numel() / torch.log(torch.tensor(2.0))
