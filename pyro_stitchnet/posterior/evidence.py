"""How likely a slice is: bounds on log p(x), what the levels of z use, and what the model draws."""

import numpy as np
import pandas as pd
import torch
from pyro import poutine
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS
from pyro_stitchnet.posterior._queries import (
    AtMean,
    asking,
    check_labels,
    check_slices,
    draws_of_z,
)
from pyro_stitchnet.posterior.uncertainties import uncertainty
from pyro_stitchnet.presets import Objective

__all__ = [
    "active_units",
    "grey_check",
    "likelihood_ratio",
    "log_evidence",
    "log_weights",
    "unusual",
]

MARGINAL = Objective(labels="marginal")  # y summed out in closed form
ACTIVE = 0.01  # Burda et al. 2016


def log_weights(net: StitchNet, x: Tensor, samples: int, *, batch_size: int = 8) -> Tensor:
    """log p(x, z) - log q(z | x) of draws of z from q(z | x), y summed out: (S, N), in nats.

    Their mean over S estimates the evidence lower bound, the log of the mean of their exponentials
    log p(x) (:func:`log_evidence`).

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: S, draws of z for each slice, from torch's global generator.
        batch_size: slices at a time.

    Raises:
        ValueError: the slices or a number are not as said.
    """
    return _log_weights(net, x, samples, batch_size, kept_above=0)


def log_evidence(net: StitchNet, x: Tensor, samples: int = 16, *, batch_size: int = 8) -> Tensor:
    """The importance-weighted bound on log p(x) (Burda et al., ICLR 2016), in nats: (N,).

    log 1/S SUM_s p(x, z_s) / q(z_s | x): in expectation below log p(x), and the nearer the more
    draws there are; with one it is the evidence lower bound. Densities of grey values in [0, 1],
    so it may be above 0; of a discretised logistic, masses of grey levels.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        samples: S, draws of z for each slice.
        batch_size: slices at a time.

    Raises:
        ValueError: as :func:`log_weights`.
    """
    weights = log_weights(net, x, samples, batch_size=batch_size)
    return weights.logsumexp(0) - np.log(samples)


def likelihood_ratio(
    net: StitchNet, x: Tensor, level: int = 2, samples: int = 8, *, batch_size: int = 8
) -> Tensor:
    """What the fine levels of z add to the evidence bound, in nats per pixel: (N,).

    Havtorn et al. (ICML 2021): the bound, minus the bound where the levels up to ``level`` come
    from the prior given those above. They propose it as a score of unusual pictures, whose details
    a model explains though it did not expect them. A model whose styles are too coarse for details
    (``guided``) does not: there :func:`unusual` is the score to take.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        level: the highest level from the prior, 1 to 4.
        samples: draws of z for each slice and bound.
        batch_size: slices at a time.

    Raises:
        ValueError: as :func:`log_weights`, or there is no such level.
    """
    if not 1 <= level < LEVELS:
        raise ValueError(f"level must be 1 to {LEVELS - 1}, got {level}")
    whole = _log_weights(net, x, samples, batch_size, kept_above=0).mean(0)
    coarse = _log_weights(net, x, samples, batch_size, kept_above=level).mean(0)
    return (whole - coarse) / x[0].numel()


def unusual(
    net: StitchNet, x: Tensor, usual: Tensor, samples: int = 4, *, batch_size: int = 8
) -> Tensor:
    """How far slices are from usual ones, in standard deviations: (N,); 1 is the usual distance.

    The root mean square of two standard scores, of the evidence bound per pixel and of the mean
    entropy of the labels, against the usual slices'. Both count either way: what is too likely
    (a black picture), or leaves no doubt anywhere, is no usual slice either (typicality; Nalisnick
    et al. 2019).

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        usual: slices of the kind that the model is for, of patients that it was not trained on,
            (M, H, W) with M at least 3.
        samples: draws of z for each slice.
        batch_size: slices at a time.

    Raises:
        ValueError: as :func:`log_weights`, or there are fewer than 3 usual slices.
    """
    if len(usual) < 3:
        raise ValueError(f"{len(usual)} usual slices; a standard deviation needs at least 3")

    def statistics(slices: Tensor) -> Tensor:
        bound = log_evidence(net, slices, samples, batch_size=batch_size) / slices[0].numel()
        doubt = uncertainty(net, slices, samples=samples, batch_size=batch_size).entropy
        return torch.stack([bound, doubt.flatten(1).mean(1)], 1)

    known = statistics(usual)
    scores = (statistics(x) - known.mean(0)) / known.std(0).clamp_min(1e-6)
    return scores.square().mean(1).sqrt()


def active_units(net: StitchNet, x: Tensor, *, batch_size: int = 8) -> dict[int, float]:
    """Which share of each level's latent pixels depends on the slice.

    A unit u is active if the variance over slices of E[z_u | x] exceeds .01 (Burda et al. 2016);
    the mean of each level is taken given the means of those above.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], N at least 2, on the model's device.
        batch_size: slices at a time.

    Raises:
        ValueError: the slices are not as said.
    """
    check_slices(net, x)
    if len(x) < 2:
        raise ValueError("a variance over slices needs at least 2")
    means: dict[int, list[Tensor]] = {level: [] for level in range(1, LEVELS + 1)}
    for part in x.split(batch_size):
        with asking(net), AtMean():
            trace = poutine.trace(net.guide).get_trace(part)
        for level, found in means.items():
            found.append(trace.nodes[f"z{level}"]["value"])
    return {
        level: float((torch.cat(found).var(0) > ACTIVE).float().mean())
        for level, found in means.items()
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

    Histograms of x where a label lies, beside those of pictures drawn anew from p(x | y, z) with
    z from q(z | x): a model that knows how tissue looks draws what was seen.

    Args:
        net: a trained model.
        x: slices (N, H, W) in [0, 1], on the model's device.
        labels: int64 (N, H, W), the truth or a segmentation.
        samples: pictures drawn of each slice.
        bins: of the histogram over [0, 1].
        batch_size: slices at a time.

    Returns:
        A row a label that is there and bin: ``label``, ``grey`` (the bin's middle), ``observed``
        (share of the label's pixels), ``drawn`` (its mean over the pictures), ``low`` and ``high``
        (2.5 and 97.5 % of the pictures).

    Raises:
        ValueError: slices, labels or a number are not as said.
    """
    check_slices(net, x)
    check_labels(labels, x)
    if samples < 2 or bins < 2:
        raise ValueError("samples and bins must be at least 2")
    seen = _histograms(x, labels, bins)
    drawn = torch.zeros(samples, *seen.shape)
    for part, y in zip(x.split(batch_size), labels.split(batch_size), strict=True):
        with asking(net):
            for s, z1 in enumerate(draws_of_z(net, part, samples)):
                picture = net.picture(z1).styles.sample().gather(-1, y.unsqueeze(-1)).squeeze(-1)
                drawn[s] += _histograms(picture, y, bins)
    rows = []
    for label, name in enumerate(LABELS):
        pixels = seen[label].sum()
        if not pixels:
            continue
        shares = drawn[:, label] / pixels
        low, high = torch.quantile(shares, torch.tensor([0.025, 0.975]), 0)
        rows.append(
            pd.DataFrame(
                {
                    "label": name,
                    "grey": (np.arange(bins) + 0.5) / bins,
                    "observed": (seen[label] / pixels).numpy(),
                    "drawn": shares.mean(0).numpy(),
                    "low": low.numpy(),
                    "high": high.numpy(),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def _log_weights(
    net: StitchNet, x: Tensor, samples: int, batch_size: int, kept_above: int
) -> Tensor:
    """The weights of q(z | x), the levels up to ``kept_above`` drawn from the prior instead."""
    check_slices(net, x)
    if samples < 1 or batch_size < 1:
        raise ValueError("samples and batch_size must be at least 1")
    parts = []
    for part in x.split(batch_size):
        with asking(net):
            parts.append(torch.stack([_weight(net, part, kept_above) for _ in range(samples)]))
    return torch.cat(parts, 1)


def _weight(net: StitchNet, x: Tensor, kept_above: int) -> Tensor:
    """log p(x, z) - log q(z | x) of one draw, by Pyro's own traces: (N,)."""
    with net.svae.one_draw():
        guide = poutine.trace(net.guide).get_trace(x, None, MARGINAL)
        for level in range(1, kept_above + 1):
            guide.remove_node(f"z{level}")  # then the model draws it
        model = poutine.trace(poutine.replay(net.model, trace=guide)).get_trace(x, None, MARGINAL)
    guide.compute_log_prob()
    model.compute_log_prob()
    levels = [f"z{level}" for level in range(kept_above + 1, LEVELS + 1)]
    of_model = [model.nodes[name]["log_prob"] for name in ["x", *levels]]
    of_guide = [guide.nodes[name]["log_prob"] for name in levels]
    return sum(p.flatten(1).sum(1) for p in of_model) - sum(q.flatten(1).sum(1) for q in of_guide)


def _histograms(x: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Pixels of each label in each bin, (K, bins)."""
    place = (x * bins).long().clamp_max(bins - 1) + bins * labels
    counts = torch.bincount(place.flatten(), minlength=bins * len(LABELS))
    return counts.view(len(LABELS), bins).float().cpu()
