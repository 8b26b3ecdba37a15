"""Bounds on log p(x), scores of unusual slices, active units and a predictive check."""

import math

import numpy as np
import pandas as pd
import torch
from pyro import poutine
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.checks import check_slices
from pyro_stitchnet.model.label_terms import Marginal
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS
from pyro_stitchnet.posterior._queries import (
    AtMean,
    Model,
    check_labels,
    draws_of_z,
    evaluating,
    trace_z,
)
from pyro_stitchnet.posterior.options import ReadOutOptions
from pyro_stitchnet.posterior.segmentation import check_read_out, probabilities
from pyro_stitchnet.posterior.uncertainties import entropy

__all__ = [
    "active_units",
    "grey_check",
    "likelihood_ratio",
    "log_evidence",
    "log_weights",
    "unusual",
]

MARGINAL = Objective(Marginal())  # sums y out in closed form
ACTIVE = 0.01  # variance (Burda et al. 2016)


def log_weights(net: Model, x: Tensor, samples: int, *, batch_size: int = 8) -> Tensor:
    """log p(x, z) - log q(z | x) of draws of z from q(z | x), y summed out: (S, N), in nats.

    The mean over S estimates the evidence lower bound; :func:`log_evidence` is the log of the mean
    of the exponentials.

    Args:
        net: a trained StitchNet or SVAE.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: S, draws of z per slice, from torch's global generator.
        batch_size: slices per forward pass.

    Raises:
        ValueError: the slices do not fit the model, or a number is below 1.
    """
    return _log_weights(net, x, samples, batch_size, kept_above=0)


def log_evidence(net: Model, x: Tensor, samples: int = 16, *, batch_size: int = 8) -> Tensor:
    """The importance-weighted bound on log p(x) (Burda et al., ICLR 2016), in nats: (N,).

    log 1/S SUM_s p(x, z_s) / q(z_s | x). In expectation it is below log p(x), and tighter with more
    draws; one draw gives the evidence lower bound. Most likelihoods are densities over [0, 1], so
    it may exceed 0; the discretised logistic has masses over grey levels.

    Args:
        net: a trained StitchNet or SVAE.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: S, draws of z per slice.
        batch_size: slices per forward pass.

    Raises:
        ValueError: as :func:`log_weights`.
    """
    weights = log_weights(net, x, samples, batch_size=batch_size)
    return weights.logsumexp(0) - math.log(samples)


def likelihood_ratio(
    net: Model, x: Tensor, level: int = 2, samples: int = 8, *, batch_size: int = 8
) -> Tensor:
    """The contribution of the fine levels of z to the evidence bound, in nats per pixel: (N,).

    The bound minus the bound with the levels up to ``level`` from the prior given the levels above
    (Havtorn et al., ICML 2021). It is high for unusual slices if the fine levels encode details.
    The styles of the preset ``guided`` are too coarse for that; use :func:`unusual` instead.

    Args:
        net: a trained StitchNet or SVAE.
        x: slices (N, H, W) in [0, 1], on the model's device.
        level: the highest level from the prior, 1 to 4.
        samples: draws of z per slice and bound.
        batch_size: slices per forward pass.

    Raises:
        ValueError: as :func:`log_weights`, or ``level`` is out of range.
    """
    if not 1 <= level < LEVELS:
        raise ValueError(f"level must be 1 to {LEVELS - 1}, got {level}")
    whole = _log_weights(net, x, samples, batch_size, kept_above=0).mean(0)
    coarse = _log_weights(net, x, samples, batch_size, kept_above=level).mean(0)
    return (whole - coarse) / x[0].numel()


def unusual(
    net: StitchNet, x: Tensor, usual: Tensor, samples: int = 4, *, batch_size: int = 8
) -> Tensor:
    """The distance of slices from usual slices in standard deviations: (N,); about 1 is usual.

    The root mean square of two standard scores, of the evidence bound per pixel and of the mean
    entropy of the labels. Both directions count: a black image is too likely, and its labels are
    too certain (typicality, Nalisnick et al. 2019).

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        usual: slices (M, H, W), M at least 3, of the intended kind and of patients that the model
            was not trained on.
        samples: draws of z per slice.
        batch_size: slices per forward pass.

    Raises:
        ValueError: as :func:`log_weights`, there are fewer than 3 usual slices, or the model has no
            labels.
    """
    if len(usual) < 3:
        raise ValueError(f"{len(usual)} usual slices; a standard deviation needs at least 3")

    def statistics(slices: Tensor) -> Tensor:
        bound = log_evidence(net, slices, samples, batch_size=batch_size) / slices[0].numel()
        options = ReadOutOptions(samples=samples, batch_size=batch_size)
        doubt = entropy(probabilities(net, slices, options))
        return torch.stack([bound, doubt.flatten(1).mean(1)], 1)

    reference = statistics(usual)
    scores = (statistics(x) - reference.mean(0)) / reference.std(0).clamp_min(1e-6)
    return scores.square().mean(1).sqrt()


def active_units(net: Model, x: Tensor, *, batch_size: int = 8) -> dict[int, float]:
    """The share of each level's entries of z that depend on the slice, by level.

    An entry u is active if the variance over slices of E[z_u | x] exceeds .01 (Burda et al. 2016).
    The mean of a level is taken given the means of the levels above.

    Args:
        net: a trained StitchNet or SVAE.
        x: slices (N, H, W) in [0, 1], N at least 2, on the model's device.
        batch_size: slices per forward pass.

    Raises:
        ValueError: the slices do not fit the model, there is only one, or ``batch_size`` is below
            1.
    """
    check_slices(net, x)
    if len(x) < 2:
        raise ValueError("a variance over slices needs at least 2")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    means: dict[int, list[Tensor]] = {level: [] for level in range(1, LEVELS + 1)}
    for part in x.split(batch_size):
        with evaluating(net), AtMean():
            trace = trace_z(net, part)
        for level, values in means.items():
            values.append(trace.nodes[f"z{level}"]["value"])
    return {
        level: float((torch.cat(values).var(0) > ACTIVE).float().mean())
        for level, values in means.items()
    }


def grey_check(
    net: StitchNet,
    x: Tensor,
    labels: Tensor,
    samples: int = 20,
    *,
    bins: int = 32,
    batch_size: int = 8,
) -> pd.DataFrame:
    """A posterior predictive check of the grey values under each label.

    It compares the histogram of x under each label with those of images drawn from p(x | y, z),
    z from q(z | x).

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        labels: int64 (N, H, W), the truth or a segmentation.
        samples: images drawn per slice, at least 2.
        bins: of the histograms over [0, 1], at least 2.
        batch_size: slices per forward pass.

    Returns:
        One row per label present and bin: ``label``; ``grey``, the middle of the bin; ``observed``,
        the share of the label's pixels; ``drawn``, its mean over the drawn images; ``low`` and
        ``high``, their 2.5 and 97.5 % quantiles.

    Raises:
        ValueError: slices or labels do not fit the model, a number is out of range, or the model
            has no labels.
    """
    check_read_out(net, "prior")  # refuses a model without labels
    check_slices(net, x)
    check_labels(labels, x)
    if samples < 2 or bins < 2 or batch_size < 1:
        raise ValueError("samples and bins must be at least 2, batch_size at least 1")
    observed = _histograms(x, labels, bins)
    drawn = torch.zeros(samples, *observed.shape)
    for part, y in zip(x.split(batch_size), labels.split(batch_size), strict=True):
        with evaluating(net):
            for s, z1 in enumerate(draws_of_z(net, part, samples)):
                images = net.picture(z1).styles.sample().gather(-1, y.unsqueeze(-1)).squeeze(-1)
                drawn[s] += _histograms(images, y, bins)
    rows = []
    for label, name in enumerate(LABELS):
        pixels = observed[label].sum()
        if not pixels:
            continue
        shares = drawn[:, label] / pixels
        low, high = torch.quantile(shares, torch.tensor([0.025, 0.975]), 0)
        rows.append(
            pd.DataFrame(
                {
                    "label": name,
                    "grey": (np.arange(bins) + 0.5) / bins,
                    "observed": (observed[label] / pixels).numpy(),
                    "drawn": shares.mean(0).numpy(),
                    "low": low.numpy(),
                    "high": high.numpy(),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def _log_weights(net: Model, x: Tensor, samples: int, batch_size: int, kept_above: int) -> Tensor:
    """Log weights of draws from q(z | x); the levels up to ``kept_above`` come from the prior."""
    check_slices(net, x)
    if samples < 1 or batch_size < 1:
        raise ValueError("samples and batch_size must be at least 1")
    parts = []
    for part in x.split(batch_size):
        with evaluating(net):
            parts.append(torch.stack([_weight(net, part, kept_above) for _ in range(samples)]))
    return torch.cat(parts, 1)


def _weight(net: Model, x: Tensor, kept_above: int) -> Tensor:
    """log p(x, z) - log q(z | x) of one draw, by Pyro's traces: (N,)."""
    objective = MARGINAL if net.config.stitched else net.objective
    with net.memo.one_draw():
        guide = trace_z(net, x)
        for level in range(1, kept_above + 1):
            guide.remove_node(f"z{level}")  # then the model draws it
        model = poutine.trace(poutine.replay(net.model, trace=guide)).get_trace(x, None, objective)
    guide.compute_log_prob()
    model.compute_log_prob()
    levels = [f"z{level}" for level in range(kept_above + 1, LEVELS + 1)]
    of_model = [model.nodes[name]["log_prob"] for name in ["x", *levels]]
    of_guide = [guide.nodes[name]["log_prob"] for name in levels]
    return sum(p.flatten(1).sum(1) for p in of_model) - sum(q.flatten(1).sum(1) for q in of_guide)


def _histograms(x: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Count the pixels of each label in each bin, (K, bins)."""
    place = (x * bins).long().clamp_max(bins - 1) + bins * labels
    counts = torch.bincount(place.flatten(), minlength=bins * len(LABELS))
    return counts.view(len(LABELS), bins).float().cpu()
