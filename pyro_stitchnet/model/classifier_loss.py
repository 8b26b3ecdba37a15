"""The loss of a classifier on label sets: the U-Net's, the baselines' and that of q(y | x)."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ClassifierLoss", "dice_loss", "labelled_share", "log_allowed"]

SMOOTH = 1.0  # pixels


@dataclass(frozen=True)
class ClassifierLoss:
    """Cross-entropy of label sets plus soft Dice, as in nnU-Net (Isensee et al. 2021).

    Added to the bound of a semi-supervised model, it is the term alpha of M2 (Kingma et al. 2014).

    Attributes:
        label_weight: factor on -log q(y in A | x), the mean over the pixels with an annotation.
        dice_weight: factor on :func:`dice_loss`.
    """

    label_weight: float = 1.0
    dice_weight: float = 1.0

    def __call__(self, log_q: Tensor, allowed: Tensor) -> Tensor:
        """Return the loss, a scalar; 0 without slices or annotations.

        Args:
            log_q: log-probabilities of the labels, (N, H, W, K).
            allowed: labels that each pixel may have, bool (N, H, W, K).
        """
        annotated = ~allowed.all(-1)
        if not annotated.any():
            return log_q.sum() * 0
        dice = self.dice_weight * dice_loss(log_q, allowed)
        return dice - self.label_weight * log_allowed(log_q, allowed)[annotated].mean()


def log_allowed(log_p: Tensor, allowed: Tensor) -> Tensor:
    """Log-probability of the allowed set, log p(y in A), for every pixel.

    Args:
        log_p: log-probabilities of the labels, (..., K).
        allowed: labels that each pixel may have, bool (..., K).

    Examples:
        >>> log_p = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
        >>> log_allowed(log_p, torch.tensor([False, False, True, True])).exp()
        tensor(0.7000)
    """
    return log_p.masked_fill(~allowed, -torch.inf).logsumexp(-1).clamp_max(0)


def dice_loss(log_p: Tensor, allowed: Tensor) -> Tensor:
    """1 - soft Dice over the pixels with one label, the mean over the labels present; a scalar.

    Dice is that of the whole batch, since lesions are rare (Isensee et al., Nature Methods 2021).

    Args:
        log_p: log-probabilities of the labels, (..., K).
        allowed: labels that each pixel may have, bool (..., K).
    """
    single = allowed.sum(-1) == 1
    p, truth = log_p.exp()[single], allowed[single].float()
    present = truth.sum(0) > 0
    if not present.any():
        return log_p.sum() * 0
    dice = (2 * (p * truth).sum(0) + SMOOTH) / (p.sum(0) + truth.sum(0) + SMOOTH)
    return 1 - dice[present].mean()


def labelled_share(allowed: Tensor) -> Tensor:
    """Share of the slices that have any annotation, at least that of one slice; a scalar.

    A loss that is a mean over all slices, divided by it, is a mean over the labelled slices.
    """
    labelled = ~allowed.flatten(1).all(1)
    return labelled.float().mean().clamp_min(1 / len(labelled))
