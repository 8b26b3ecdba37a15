"""How well predicted label probabilities agree with the sets of labels that pixels may have."""

import torch
from torch import Tensor

__all__ = ["dice_loss", "log_allowed"]

SMOOTH = 1.0  # pixels


def log_allowed(log_p: Tensor, allowed: Tensor) -> Tensor:
    """log p(y in A), pixel by pixel, (...).

    Args:
        log_p: log-probabilities of the labels, (..., K).
        allowed: the labels that each pixel may have, bool (..., K).

    Examples:
        >>> log_p = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
        >>> log_allowed(log_p, torch.tensor([False, False, True, True])).exp()
        tensor(0.7000)
    """
    return log_p.masked_fill(~allowed, -torch.inf).logsumexp(-1).clamp_max(0)


def dice_loss(log_p: Tensor, allowed: Tensor) -> Tensor:
    """1 - soft Dice, the mean over the labels that are there, of all pixels of one label; a scalar.

    Source: Isensee et al., nnU-Net, Nature Methods 2021, of a whole batch, as lesions are rare.

    Args:
        log_p: log-probabilities of the labels, (..., K).
        allowed: the labels that each pixel may have, bool (..., K).
    """
    single = allowed.sum(-1) == 1
    p, truth = log_p.exp()[single], allowed[single].float()
    there = truth.sum(0) > 0
    if not there.any():
        return log_p.sum() * 0
    dice = (2 * (p * truth).sum(0) + SMOOTH) / (p.sum(0) + truth.sum(0) + SMOOTH)
    return 1 - dice[there].mean()
