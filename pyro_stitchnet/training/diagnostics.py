"""What to watch while StitchNet trains: the bound's terms, and whether its styles part."""

import torch
from pyro import poutine
from torch.distributions import kl_divergence
from torch.nn.functional import one_hot

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import LEVELS
from pyro_stitchnet.posterior import style_gaps
from pyro_stitchnet.presets import Objective

__all__ = ["diagnose", "label_drop"]


def label_drop(picture: Stitched, batch: Batch) -> float:
    """Nats per labelled pixel that log p(x | y, z) falls when y is replaced with a wrong label.

    The mean over the three wrong labels. Near 0, y does not matter and is not learnt from x. NaN
    where no pixel of the batch has exactly one label.
    """
    scores = picture.styles.log_prob(batch.x.unsqueeze(-1))
    labelled = batch.allowed.sum(-1) == 1
    right = scores[batch.allowed & labelled[..., None]]
    wrong = (scores.sum(-1)[labelled] - right) / (len(LABELS) - 1)
    return float((right - wrong).mean())


@torch.no_grad()
def diagnose(net: StitchNet, batch: Batch) -> dict[str, float]:
    """Figures of one batch, from one draw of z, in evaluation mode.

    Returns:
        ``elbo/log_px``: log p(x | y, z) for the allowed labels' mixture; ``elbo/kl``: the sum over
        levels of ``kl/z1`` ... ``kl/z5``, all in nats per pixel of the slice; ``elbo/log_py``: log
        p(y in A | z), in nats per pixel that has an annotation; ``style_gap/...`` and ``share/...``
        (predicted share of each label), and both again as ``unlabelled_...`` on the slices
        without any annotation, if there are some; ``told/...``, the share of each label among the
        pixels that have exactly one, ``told_share/...``, that of the pixels there of which it is
        the likeliest label, if there are any; ``label_drop``.
    """
    was_training = net.training
    net.eval()
    try:
        objective = Objective(labels="marginal")
        # Watching must not change the run: the training's random numbers stay as they are.
        devices = [batch.x.device] if batch.x.is_cuda else []
        with torch.random.fork_rng(devices), net.svae.one_pass():
            guide = poutine.trace(net.guide).get_trace(batch.x, batch.allowed, objective)
            model = poutine.trace(poutine.replay(net.model, trace=guide)).get_trace(
                batch.x, batch.allowed, objective
            )
            picture = model.nodes["_RETURN"]["value"]
            # What says which label a pixel has: q(y | x) where the guide has it.
            decided = picture.log_pi if net.segmenter is None else net.log_q(batch.x)
    finally:
        net.train(was_training)
    pixels = batch.x.numel()
    kl = {
        f"kl/z{n}": float(
            kl_divergence(guide.nodes[f"z{n}"]["fn"], model.nodes[f"z{n}"]["fn"]).sum() / pixels
        )
        for n in range(1, LEVELS + 1)
    }
    log_py = picture.log_pi.masked_fill(~batch.allowed, -torch.inf).logsumexp(-1)
    log_joint = model.nodes["x"]["fn"].log_prob(batch.x)
    styles, pi = picture.styles.mean, picture.log_pi.exp()
    annotated = ~batch.allowed.all(-1)
    unlabelled = ~annotated.flatten(1).any(1)
    groups = {"": torch.ones_like(unlabelled)}
    if unlabelled.any() and not unlabelled.all():
        groups["unlabelled_"] = unlabelled
    told = batch.allowed.sum(-1) == 1
    shares = {}
    if told.any():
        predicted = one_hot(decided[told].argmax(-1), len(LABELS))
        shares = {"told": batch.allowed[told].float(), "told_share": predicted.float()}
    return {
        "elbo/log_px": float((log_joint - log_py).mean()),
        "elbo/log_py": float(log_py[annotated].mean()) if annotated.any() else 0.0,
        "elbo/kl": sum(kl.values()),
        **kl,
        **{
            f"{group}style_gap/{pair}": gap
            for group, which in groups.items()
            for pair, gap in style_gaps(styles[which]).items()
        },
        **{
            f"{group}share/{label}": float(pi[which][..., k].mean())
            for group, which in groups.items()
            for k, label in enumerate(LABELS)
        },
        **{
            f"{group}/{label}": float(share)
            for group, pixels in shares.items()
            for label, share in zip(LABELS, pixels.mean(0), strict=True)
        },
        "label_drop": label_drop(picture, batch),
    }
