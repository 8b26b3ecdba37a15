"""Metrics of a bound: its terms, the distance of the styles, and the labels that it predicts."""

import math
import warnings

import pyro
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.bound import Bound, bound
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.label_terms import Marginal
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS
from pyro_stitchnet.posterior import style_gaps

__all__ = ["bound_metrics", "diagnose", "label_drop", "not_finite_terms"]


@torch.no_grad()
def label_drop(picture: Stitched, x: Tensor, allowed: Tensor) -> float:
    """Nats per labelled pixel by which log p(x | y, z) falls under a wrong label.

    The mean over the three wrong labels. Near 0, y hardly matters and is not learnt from x. NaN
    where no pixel of the batch has exactly one label.
    """
    scores = picture.styles.log_prob(x.unsqueeze(-1))
    labelled = allowed.sum(-1) == 1
    right = scores[allowed & labelled[..., None]]
    wrong = (scores.sum(-1)[labelled] - right) / (len(LABELS) - 1)
    return float((right - wrong).mean())


@torch.no_grad()
def bound_metrics(result: Bound, log_q: Tensor | None = None) -> dict[str, float]:
    """Metrics of a bound, from the pass that computed it.

    Args:
        result: of a StitchNet.
        log_q: log q(y | x), (N, H, W, K), where a classifier predicts the labels.

    Returns:
        ``elbo/log_px``: log p(x | y in A, z); ``elbo/kl``: the sum over levels of ``kl/z1`` ...
        ``kl/z5``; all in nats per pixel of the slice. ``elbo/log_py``: log p(y in A | z) in nats
        per annotated pixel. ``style_gap/<pair>``, and ``share/<label>``: mean p(y | z); both again
        as ``unlabelled_...`` on the unlabelled slices, if the batch mixes. ``labelled/<label>``:
        share of each label among the pixels with exactly one; ``predicted/<label>``: share of the
        likeliest labels there. ``label_drop``.
    """
    picture = result.picture
    assert isinstance(picture, Stitched)
    x = result.x
    allowed = result.allowed
    if allowed is None:
        allowed = torch.ones(*x.shape, len(LABELS), dtype=torch.bool, device=x.device)
    kl = {f"kl/z{n}": float(result.kl[n]) for n in range(1, LEVELS + 1)}
    annotated = ~allowed.all(-1)
    styles, pi = picture.styles.mean, picture.log_pi.exp()
    unlabelled = ~annotated.flatten(1).any(1)
    groups = {"": torch.ones_like(unlabelled)}
    if unlabelled.any() and not unlabelled.all():
        groups["unlabelled_"] = unlabelled
    return {
        "elbo/log_px": float(result.log_px.mean()),
        "elbo/log_py": float(result.log_py[annotated].mean()) if annotated.any() else 0.0,
        "elbo/kl": sum(kl.values()),
        **kl,
        **{
            f"{group}style_gap/{pair}": gap
            for group, rows in groups.items()
            for pair, gap in style_gaps(styles[rows]).items()
        },
        **{
            f"{group}share/{label}": float(pi[rows][..., k].mean())
            for group, rows in groups.items()
            for k, label in enumerate(LABELS)
        },
        **_labelled_shares(picture.log_pi if log_q is None else log_q, allowed),
        "label_drop": label_drop(picture, x, allowed),
    }


def diagnose(net: StitchNet, batch: Batch) -> dict[str, float]:
    """:func:`bound_metrics` of one batch from a pass of its own, in evaluation mode.

    The random state and the mode of the model are restored.
    """
    was_training = net.training
    net.eval()
    devices = [batch.x.device] if batch.x.is_cuda else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices), net.memo.one_pass():
            result = bound(net, batch.x, batch.allowed, Objective(Marginal()))
            log_q = None if net.classifier is None else net.log_q(batch.x)
    finally:
        net.train(was_training)
    return bound_metrics(result, log_q)


def not_finite_terms(net: StitchNet, batch: Batch) -> str:
    """Describe which terms of the bound are not finite on which slices, with one draw of z."""
    problems = []
    for i, name in enumerate(batch.names or map(str, range(len(batch.x)))):
        one = Batch(batch.x[i : i + 1], batch.allowed[i : i + 1])
        if not one.x.isfinite().all():
            problems.append(f"{name}: its grey values")
            continue
        # Pyro's checks would raise or warn at the first of them.
        with pyro.validation_enabled(False), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered")
            metrics = diagnose(net, one)
        terms = ("elbo/log_px", "elbo/log_py", *(f"kl/z{n}" for n in range(LEVELS, 0, -1)))
        wrong = [term for term in terms if not math.isfinite(metrics[term])]
        if wrong:
            problems.append(f"{name}: {', '.join(wrong)}")
    if not problems:
        return "the bound of each single slice is finite; another term or the gradient is not"
    return "not finite: " + "; ".join(problems)


def _labelled_shares(log_p: Tensor, allowed: Tensor) -> dict[str, float]:
    """Shares of the true and of the likeliest labels on pixels with exactly one label."""
    single = allowed.sum(-1) == 1
    if not single.any():
        return {}
    true = allowed[single].float().mean(0)
    predicted = one_hot(log_p[single].argmax(-1), len(LABELS)).float().mean(0)
    return {
        **{f"labelled/{label}": float(share) for label, share in zip(LABELS, true, strict=True)},
        **{
            f"predicted/{label}": float(share)
            for label, share in zip(LABELS, predicted, strict=True)
        },
    }
