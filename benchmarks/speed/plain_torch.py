"""A StitchNet's loss in plain PyTorch: its networks, without Pyro or distribution classes.

Written by hand for this one loss; ``enumeration.py`` compares its speed and value with the
library's. For the label terms "marginal" and "enumerated" only.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet


def loss(net: StitchNet, x: Tensor, allowed: Tensor, objective: Objective) -> Tensor:
    """The negative bound in nats per pixel: eq. 9 with its weights, labels summed out."""
    pyramid = net.svae.encoder(x[:, None])
    z, divergence = None, torch.zeros((), device=x.device)
    for level in range(len(pyramid) - 1, -1, -1):
        loc, log_var = gaussian(net.svae.crush[level](pyramid[level], generating=False))
        if z is None:
            prior_loc = prior_log_var = torch.zeros_like(loc)
        else:
            d = net.svae.up[level](net.svae.expand[level + 1](z))
            prior_loc, prior_log_var = gaussian(net.svae.crush[level](d, generating=True))
        precision, prior_precision = (-log_var).exp(), (-prior_log_var).exp()
        var = 1 / (precision + prior_precision)
        loc = var * (precision * loc + prior_precision * prior_loc)
        noise = torch.randn_like(loc)
        z = loc + var.sqrt() * noise
        log_ratio = (z - prior_loc) ** 2 * prior_precision + prior_log_var - noise**2 - var.log()
        divergence = divergence + log_ratio.sum() / 2
        if objective.free_bits:
            kl = (var + (loc - prior_loc) ** 2) * prior_precision - 1 + prior_log_var - var.log()
            short = (objective.free_bits - kl.mean() / 2).clamp_min(0)
            divergence = divergence + short * kl.numel()
    features = net.svae.decoder(net.svae.expand[0](z))
    maps = torch.cat([head(features) for head in net.heads], 1).float()
    logits, a, b = maps.chunk(3, 1)
    log_pi = logits.log_softmax(1)
    sets = allowed.movedim(-1, 1)
    scores = log_pi + LOG_LIKELIHOODS[net.config.likelihood](x[:, None], a, b)
    log_likelihood = scores.masked_fill(~sets, -math.inf).logsumexp(1).sum()
    label_weight = objective.labels.label_weight
    if label_weight != 1:
        log_label = log_pi.masked_fill(~sets, -math.inf).logsumexp(1).clamp_max(0)
        log_likelihood = log_likelihood + (label_weight - 1) * log_label.sum()
    return (objective.kl_weight * divergence - log_likelihood) / x.numel()


def gaussian(parameters: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    mean, log_var = parameters
    return mean.float(), log_var.float().clamp(-10, 10)


def log_beta(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    inset = 0.5 / 255
    x = inset + (1 - 2 * inset) * x
    norm = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b) + math.log(1 - 2 * inset)
    return (a - 1) * x.log() + (b - 1) * (-x).log1p() + norm


def beta(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return log_beta(x, functional.softplus(a) + 1e-3, functional.softplus(b) + 1e-3)


def bounded_beta(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    mean = 0.01 + 0.98 * a.sigmoid()
    precision = 4 * torch.exp(math.log(50) * b.sigmoid())
    return log_beta(x, mean * precision, (1 - mean) * precision)


def discretised_logistic(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    smallest, largest = math.log(0.5 / 255), math.log(0.3)
    inverse = torch.exp(-(smallest + (largest - smallest) * b.sigmoid()))
    level = (x * 255).round() / 255
    upper = (level + 0.5 / 255 - a.sigmoid()) * inverse
    lower = (level - 0.5 / 255 - a.sigmoid()) * inverse
    below, above = functional.logsigmoid(upper), functional.logsigmoid(-lower)
    inside = torch.log(-torch.expm1(-inverse / 255)) + below + above
    return torch.where(level == 0, below, torch.where(level == 1, above, inside))


LOG_LIKELIHOODS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "beta": beta,
    "bounded-beta": bounded_beta,
    "discretised-logistic": discretised_logistic,
}
