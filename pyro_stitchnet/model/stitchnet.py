"""StitchNet: a segmentation y, four styles b, h, g, c, and the slice x stitched from them."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_stitchnet.labels import CONSOLIDATION, GGO, LABELS
from pyro_stitchnet.model.classifier_loss import dice_loss, log_allowed
from pyro_stitchnet.model.distributions import (
    ExpectedStitched,
    ExpRelaxedCategorical,
    Picked,
    Stitched,
    pick,
)
from pyro_stitchnet.model.likelihoods import FAMILIES, FROM_MOMENTS
from pyro_stitchnet.model.nn.blocks import Head
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.model.svae import SVAE, check_size
from pyro_stitchnet.presets import ModelConfig, Objective

__all__ = ["StitchNet"]

# Added to the logit of a label outside a pixel's allowed set where the guide has y: a density on
# the open simplex has no room for exact zeros, nor has a sum over labels for 0 * log 0.
FORBIDDEN = -20.0

# What is left of the random weights of anchored styles.
ANCHORED = 0.1


class StitchNet(nn.Module):
    """The article's model and guide over one body of networks.

    For slices x and latent maps z of the :class:`~pyro_stitchnet.model.svae.SVAE`::

        z ~ p(z)                                    sites z5 ... z1, plate slices
        y | z ~ Categorical(pi(z))                  site y, plates slices, rows, columns
        b, h, g, c | z ~ Beta(alpha(z), beta(z))    one style a label
        x = Phi(y, b, h, g, c)                      site x: the pixel of the style that y picks

    Labelled: ``poutine.condition(net.model, {"y": y})``. Unlabelled: y is enumerated under
    ``TraceEnum_ELBO``. The programs touch no Pyro parameter store: train with a torch optimiser
    on :func:`~pyro_stitchnet.model.objective.negative_elbo`, or with ``pyro.infer.SVI`` as
    ``examples/train_svi.py`` does.

    Attributes:
        config: the :class:`~pyro_stitchnet.presets.ModelConfig` that it was built from.
        svae: the hierarchy of z.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        """Build the networks.

        Args:
            config: sizes, wiring, likelihood; the article's if left out.

        Raises:
            ValueError: the configuration names something unknown.
            FileNotFoundError: its weights are not at hand.
        """
        super().__init__()
        self.config = config or ModelConfig()
        if self.config.likelihood not in FAMILIES:
            raise ValueError(
                f"likelihood {self.config.likelihood!r} is unknown; choose one of "
                f"{', '.join(FAMILIES)}"
            )
        # First, so that from one seed q(y | x) begins as the U-Net of the baselines does.
        self.segmenter = UNet(self.config.weights) if self.config.segmenter else None
        self.svae = SVAE(self.config)

        # p(y | z)'s logits, then the first and the second parameter of each style, a map each.
        # Coarse styles have a head of their own, which never sees more than the coarse features.
        labels, c = len(LABELS), self.config
        if c.style_grain > c.shrink:
            outputs = [labels, 2 * labels]
        else:
            outputs = [3 * labels] if c.shared_heads else [labels] + [1] * 2 * labels
        self.heads = nn.ModuleList(
            Head(c.decoder_channels, c.head_channels, n, c.norm) for n in outputs
        )

    def model(
        self,
        x: Tensor | None,
        allowed: Tensor | None = None,
        objective: Objective | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        log_q: Tensor | None = None,
    ) -> Stitched:
        """p(z) p(y | z) p(x | y, z).

        Args:
            x: slices (N, H, W) in [0, 1], or None to draw them.
            allowed: labels that each pixel may have, bool (N, H, W, K); None allows all.
            objective: how y enters and the weights; the article's if left out.
            shape: (N, H, W) of what to draw, where ``x`` is None.
            log_q: log q(y | x), (N, H, W, K), which labels teach where y is guided; what the
                segmenter makes of ``x`` if left out.

        Returns:
            The picture given z: label probabilities and styles.

        Raises:
            ValueError: a size is not a multiple of 32; the message has the nearest right ones.
        """
        objective = objective or Objective()
        if x is not None:
            shape = tuple(x.shape)
        if shape is None:
            raise ValueError("model(None) draws slices: say how many and how large with shape=")
        check_size(shape, self.config.shrink)
        slices, rows, columns = _plates(shape)
        with slices:
            picture = self.picture(self.svae.model(shape, objective))
        with slices, rows, columns:
            if objective.labels == "marginal":
                pyro.sample("x", picture.given(allowed), obs=x)
            elif objective.labels == "enumerated":
                y = pyro.sample(
                    "y", dist.Categorical(logits=picture.log_pi), infer={"enumerate": "parallel"}
                )
                if allowed is not None:
                    pyro.factor("allowed", _log_membership(y, allowed))
                pyro.sample("x", Picked(y, picture.styles), obs=x)
            elif objective.labels == "guided":
                y = pyro.sample("y", dist.Categorical(logits=picture.log_pi))
                pyro.sample("x", Picked(y, picture.styles), obs=x)
            elif objective.labels == "relaxed":
                log_y = pyro.sample("y", _relaxed(picture, allowed, objective))
                pyro.sample("x", Stitched(log_y, picture.styles, allowed), obs=x)
            else:
                pyro.sample("x", ExpectedStitched(picture.log_pi, picture.styles), obs=x)
                if allowed is not None:
                    pyro.factor("focal", -_focal(picture.log_pi, allowed, objective))
            # A relaxed y is drawn given A, so there all of log p(y in A | z) is still to come.
            owed = objective.label_weight - (objective.labels not in ("relaxed", "guided"))
            if allowed is not None and owed:
                guided = objective.labels == "guided"
                log_p = picture.log_pi
                if guided and x is not None:
                    log_p = self.log_q(x) if log_q is None else log_q
                factor = owed * log_allowed(log_p, allowed)
                if guided:  # as a mean over the slices with labels, however many have none
                    factor = factor / _labelled_share(allowed)
                pyro.factor("label_weight", factor)
                if guided:
                    pyro.factor("dice", -objective.dice_weight * dice_loss(log_p, allowed))
        return picture

    def guide(
        self,
        x: Tensor,
        allowed: Tensor | None = None,
        objective: Objective | None = None,
        *,
        log_q: Tensor | None = None,
    ) -> Tensor:
        """q(z | x); where y is relaxed or guided, also q(y | x, z), Bayes' rule through the styles.

        Args:
            x: slices (N, H, W) in [0, 1].
            allowed: labels that each pixel may have; only a relaxed or guided y heeds it.
            objective: as for :meth:`model`.
            log_q: log q(y | x) of a guided y, (N, H, W, K); the segmenter's if left out.

        Returns:
            The value of site z1, for :meth:`picture`.

        Raises:
            ValueError: a size is not a multiple of 32; the message has the nearest right ones.
        """
        objective = objective or Objective()
        check_size(tuple(x.shape), self.config.shrink)
        slices, rows, columns = _plates(tuple(x.shape))
        with slices:
            z1 = self.svae.guide(x, objective)
        if objective.labels == "relaxed":
            picture = self.picture(z1)
            with slices, rows, columns:
                pyro.sample("y", _relaxed(picture, allowed, objective, x))
        elif objective.labels == "guided":
            log_q = self.log_q(x) if log_q is None else log_q
            taught = objective.guide_weight
            log_q = taught * log_q + (1 - taught) * log_q.detach()  # the value stays
            # Without Bayes' rule, a q that is wrong yet would have every style explain all tissues.
            log_q = log_q + self.picture(z1).styles.log_prob(x.unsqueeze(-1)).detach()
            if allowed is not None:
                best = log_q.masked_fill(~allowed, -torch.inf).amax(-1, keepdim=True)
                log_q = torch.where(allowed, log_q, best + FORBIDDEN)
            with slices, rows, columns:
                pyro.sample("y", dist.Categorical(logits=log_q), infer={"enumerate": "parallel"})
        return z1

    def picture(self, z1: Tensor) -> Stitched:
        """What z says about every pixel: p(y | z) and the styles, as one distribution over x.

        Args:
            z1: the value of site z1.
        """
        return self.svae.once("picture", z1, lambda: self._picture(z1))

    def log_pi(self, z1: Tensor) -> Tensor:
        """log p(y | z) alone, (N, H, W, K): what a segmentation needs of :meth:`picture`.

        Args:
            z1: the value of site z1.
        """
        logits = self.heads[0](self.svae.features(z1), len(LABELS))
        logits = _enlarged(logits, self.config.shrink)
        return logits.float().log_softmax(1).movedim(1, -1)

    @torch.no_grad()
    def anchor(self, x: Tensor, allowed: Tensor) -> None:
        """Let every style begin with the mean and deviation of its label's grey values.

        The last layer of the styles' head gets them as its bias, and its weights are scaled down,
        so that the styles hardly depend on z yet. A label that no pixel has alone stays as it is.

        Args:
            x: annotated slices (N, H, W) in [0, 1].
            allowed: the labels that each pixel may have, bool (N, H, W, K).

        Raises:
            ValueError: the likelihood's parameters do not follow from moments.
        """
        if self.config.likelihood not in FROM_MOMENTS:
            raise ValueError(
                f"styles of the likelihood {self.config.likelihood!r} cannot be anchored; choose "
                f"one of {', '.join(FROM_MOMENTS)}"
            )
        single = allowed.sum(-1) == 1
        for label in range(len(LABELS)):
            grey = x[single & allowed[..., label]]
            if len(grey) < 2:
                continue
            found = FROM_MOMENTS[self.config.likelihood](grey.mean(), grey.std())
            for number, value in zip((1, 2), found, strict=True):
                weight, bias = self._outputs(number * len(LABELS) + label)
                weight.mul_(ANCHORED)
                bias.copy_(value)

    def _outputs(self, place: int) -> tuple[Tensor, Tensor]:
        """Weights and bias of the last layer for one of the heads' maps, in their order."""
        last = [list(head.children())[-1] for head in self.heads]
        maps = [
            (weight, bias)
            for convolution in last
            for weight, bias in zip(*convolution.parameters(), strict=True)
        ]
        return maps[place]

    def log_q(self, x: Tensor) -> Tensor:
        """log q(y | x) of slices (N, H, W), the segmenter's: (N, H, W, K).

        Raises:
            ValueError: the model has none.
        """
        segmenter = self.segmenter
        if segmenter is None:
            raise ValueError("this model's guide has no q(y | x); build it with segmenter=True")

        def ask() -> Tensor:
            return segmenter(x.unsqueeze(1)).float().log_softmax(1).movedim(1, -1)

        return self.svae.once("segmenter", x, ask)

    def log_posterior(self, z1: Tensor, x: Tensor, log_q: Tensor | None = None) -> Tensor:
        """log p(y | x, z) but for a constant, (N, H, W, K), by Bayes' rule through the styles.

        With a segmenter, q(y | x) says whether there is a lesion, and Bayes' rule which: q is what
        is known before x's grey values are looked at one by one, and these, p(x | y, z), count by
        the power of the model's ``tempering``. Vessels are as bright as lesions, so pixels by
        themselves do not tell lesions from healthy lung.

        Args:
            z1: the value of site z1.
            x: slices (N, H, W).
            log_q: log q(y | x), (N, H, W, K); the segmenter's if left out.
        """
        picture = self.picture(z1)
        if self.segmenter is None:
            return picture.joint(x)
        log_q = self.log_q(x) if log_q is None else log_q
        lesions = slice(GGO, CONSOLIDATION + 1)
        scores = picture.styles.select(lesions).log_prob(x.unsqueeze(-1))
        infected = torch.logaddexp(log_q[..., GGO], log_q[..., CONSOLIDATION]).unsqueeze(-1)
        weights = log_q[..., lesions] + self.config.tempering * scores
        # log-softmax of two, which on CPUs is many times as slow over a last axis so short
        denser = weights[..., 1:] - weights[..., :1]
        which = [functional.logsigmoid(-denser), functional.logsigmoid(denser)]
        return torch.cat([log_q[..., :GGO], *(infected + w for w in which)], -1)

    def _picture(self, z1: Tensor) -> Stitched:
        features = self.svae.features(z1)
        shrink, grain = self.config.shrink, self.config.style_grain
        if grain > shrink:
            labels, styles = self.heads
            blocks = functional.avg_pool2d(features, grain // shrink, ceil_mode=True)
            whole = [shrink * side for side in features.shape[-2:]]
            maps = [_enlarged(labels(features), shrink), _resized(styles(blocks), whole)]
        else:
            maps = [_enlarged(head(features), shrink) for head in self.heads]
        parameters = torch.cat(maps, 1).float().movedim(1, -1)
        logits, a, b = parameters.split(len(LABELS), -1)
        return Stitched(logits, FAMILIES[self.config.likelihood](a, b))


def _plates(shape: tuple[int, ...]) -> list[pyro.plate]:
    """The independent parts of a batch of pictures; y and x are pixelwise in all three."""
    names = ("slices", "rows", "columns")
    return [
        pyro.plate(name, size, dim=i - 3)
        for i, (name, size) in enumerate(zip(names, shape, strict=True))
    ]


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    """Maps (N, C, H, W) drawn smooth at ``factor`` times their size."""
    return maps if factor == 1 else _resized(maps, [factor * side for side in maps.shape[-2:]])


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, C, H, W) drawn smooth at another size."""
    return functional.interpolate(maps, list(size), mode="bilinear")


def _log_membership(y: Tensor, allowed: Tensor) -> Tensor:
    """log 1[y in A], pixel by pixel; ``y`` may carry enumeration dims on the left."""
    return torch.where(pick(allowed, y), 0.0, -torch.inf)


def _relaxed(
    picture: Stitched, allowed: Tensor | None, objective: Objective, x: Tensor | None = None
) -> ExpRelaxedCategorical:
    """The log of a relaxed y given that it lies in A, and given ``x`` where that is known."""
    logits = picture.log_pi
    if x is not None:
        scores = picture.styles.log_prob(x.unsqueeze(-1))
        if allowed is not None:  # x only tells the allowed labels apart
            best = scores.masked_fill(~allowed, -torch.inf).amax(-1, keepdim=True)
            scores = torch.where(allowed, scores - best, 0.0)
        logits = logits + scores
    if allowed is not None:
        logits = logits + torch.where(allowed, 0.0, FORBIDDEN)
    temperature = logits.new_tensor(objective.temperature)
    return ExpRelaxedCategorical(temperature, logits=logits)


def _focal(log_pi: Tensor, allowed: Tensor, objective: Objective) -> Tensor:
    """The reference code's label loss: 100 x focal loss, a mean over the pixels that have a label.

    With a set of labels, p is the probability of the set; where all are allowed it costs nothing.
    The factor makes up for the slices without labels, over which the loss as a whole is a mean too.
    """
    log_p = log_allowed(log_pi, allowed)
    focal = (1 - log_p.exp()) ** objective.focal_gamma * -log_p
    return objective.focal_weight / _labelled_share(allowed) * focal


def _labelled_share(allowed: Tensor) -> Tensor:
    """Which part of the slices have any annotation; that of one slice where none has."""
    labelled = ~allowed.flatten(1).all(1)
    return labelled.float().mean().clamp_min(1 / len(labelled))
