"""StitchNet: a segmentation y, four styles b, h, g, c, and the slice x stitched from them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_stitchnet.labels import CONSOLIDATION, GGO, LABELS
from pyro_stitchnet.model.anchoring import anchor_styles
from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.levels import TissueLevels
from pyro_stitchnet.model.likelihoods import FAMILIES, check_likelihood
from pyro_stitchnet.model.memo import remembered
from pyro_stitchnet.model.nn.blocks import Head, start_as_identity
from pyro_stitchnet.model.nn.resize import enlarge, resize
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.svae import SVAE, check_size, pixel_plates

__all__ = ["StitchNet"]


class StitchNet(nn.Module):
    """The article's model and guide over one body of networks.

    For slices x and latent maps z of the :class:`~pyro_stitchnet.model.svae.SVAE`::

        z ~ p(z)                                    sites z5 ... z1, plate slices
        y | z ~ Categorical(pi(z))                  site y, plates slices, rows, columns
        b, h, g, c | z ~ Beta(alpha(z), beta(z))    one style per label
        x = Phi(y, b, h, g, c)                      site x: the pixel of the style that y picks

    Labelled: ``poutine.condition(net.model, {"y": y})``. Unlabelled: y is enumerated under
    ``TraceEnum_ELBO``. The programs do not use Pyro's parameter store: train with a torch optimiser
    on :func:`~pyro_stitchnet.model.bound.bound`, or with ``pyro.infer.SVI`` as
    ``examples/train_svi.py`` does.

    Attributes:
        config: the :class:`~pyro_stitchnet.model.config.ModelConfig` that it was built from.
        svae: the hierarchy of z.
        classifier: the network of q(y | x), or None.
        levels: what separates GGO from consolidation in a model with a classifier, or None.
        memo: keeps results within one pass; see :class:`~pyro_stitchnet.model.memo.Memo`.
    """

    objective = Objective()
    """The objective by default: the article's."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        """Build the networks.

        Args:
            config: sizes, wiring, likelihood; the article's by default.

        Raises:
            ValueError: the configuration has an unknown value.
            FileNotFoundError: its weights are missing.
        """
        super().__init__()
        self.config = config = config or ModelConfig()
        if not config.stitched:
            raise ValueError("stitched=False is the SVAE alone; build a SliceVAE")
        check_likelihood(config.likelihood)
        # Before the SVAE: from one seed, q(y | x) starts with the weights of the baselines' U-Net.
        self.classifier = UNet(config.weights) if config.classifier else None
        self.levels = TissueLevels() if config.classifier else None
        self.svae = SVAE(config)
        self.memo = self.svae.memo
        # The maps of p(y | z), then the first and the second parameter of each style. Pooled styles
        # have a head of their own, which only sees the pooled features.
        labels = len(LABELS)
        if config.style_pool > config.downsampling:
            outputs = [labels, 2 * labels]
        else:
            outputs = [3 * labels] if config.shared_heads else [labels] + [1] * 2 * labels
        self.heads = nn.ModuleList(
            Head(config.decoder_channels, config.head_channels, n, config.norm) for n in outputs
        )
        if config.identity_start:
            start_as_identity(self)

    def model(
        self,
        x: Tensor | None,
        allowed: Tensor | None = None,
        objective: Objective | None = None,
        *,
        shape: tuple[int, ...] | None = None,
    ) -> Stitched:
        """p(z) p(y | z) p(x | y, z).

        Args:
            x: slices (N, H, W) in [0, 1], or None to draw them.
            allowed: labels that each pixel may have, bool (N, H, W, K); None allows all.
            objective: how y enters, and the weights; the article's by default.
            shape: (N, H, W) of the slices to draw, where ``x`` is None.

        Returns:
            p(x, y | z): label probabilities and styles.

        Raises:
            ValueError: a size is not a multiple of 32 times ``downsampling``; the message has the
                nearest valid ones.
        """
        objective = objective or self.objective
        shape = tuple(x.shape) if x is not None else shape
        if shape is None:
            raise ValueError("model(None) draws slices: give their number and size as shape=")
        check_size(shape, self.config.downsampling)
        slices, rows, columns = pixel_plates(shape)
        with slices:
            z1 = self.svae.model(shape, objective)  # eq. 4: z ~ p(z)
        picture = self.picture(z1)  # eq. 5, 6: pi(z), and the styles b, h, g, c given z
        with slices, rows, columns:
            objective.labels.observe(x, picture, allowed)  # eq. 6: y; eq. 4: x = Phi(y, styles)
        return picture

    def guide(
        self,
        x: Tensor,
        allowed: Tensor | None = None,
        objective: Objective | None = None,
        *,
        log_q: Tensor | None = None,
    ) -> Tensor:
        """q(z | x) of eq. 8; for label terms with y in the guide also q(y | x, z).

        Args:
            x: slices (N, H, W) in [0, 1].
            allowed: labels that each pixel may have, as for :meth:`model`.
            objective: as for :meth:`model`.
            log_q: log q(y | x), (N, H, W, K); the classifier's by default.

        Returns:
            The value of site z1, for :meth:`picture`.

        Raises:
            ValueError: a size is not a multiple of 32 times ``downsampling``; the message has the
                nearest valid ones.
        """
        objective = objective or self.objective
        check_size(tuple(x.shape), self.config.downsampling)
        slices, rows, columns = pixel_plates(tuple(x.shape))
        with slices:
            z1 = self.svae.guide(x, objective)
        if log_q is None and self.classifier is not None:
            log_q = self.log_q(x)
        with slices, rows, columns:
            objective.labels.infer(x, self.picture(z1), allowed, log_q)
        return z1

    @remembered(of="z")
    def picture(self, z1: Tensor, /) -> Stitched:
        """p(x, y | z): label probabilities and styles of every pixel (eq. 5, 6).

        Args:
            z1: the value of site z1.
        """
        features = self.svae.features(z1)
        downsampling, pool = self.config.downsampling, self.config.style_pool
        run = self.svae.run
        if pool > downsampling:
            labels, styles = self.heads
            pooled = functional.avg_pool2d(features, pool // downsampling, ceil_mode=True)
            full = [downsampling * side for side in features.shape[-2:]]
            maps = [enlarge(run(labels, features), downsampling), resize(run(styles, pooled), full)]
        else:
            maps = [enlarge(run(head, features), downsampling) for head in self.heads]
        parameters = torch.cat(maps, 1).float().movedim(1, -1)
        logits, a, b = parameters.split(len(LABELS), -1)
        return Stitched(logits, FAMILIES[self.config.likelihood](a, b))

    def log_pi(self, z1: Tensor) -> Tensor:
        """log p(y | z) alone, (N, H, W, K), without the cost of the styles.

        Args:
            z1: the value of site z1.
        """
        logits = self.heads[0](self.svae.features(z1), len(LABELS))
        logits = enlarge(logits, self.config.downsampling)
        return logits.float().log_softmax(1).movedim(1, -1)

    @remembered(of="slices")
    def log_q(self, x: Tensor, /) -> Tensor:
        """log q(y | x) of slices (N, H, W), (N, H, W, K).

        Raises:
            ValueError: the model has no classifier.
        """
        if self.classifier is None:
            raise ValueError("this model's guide has no q(y | x); build it with classifier=True")
        return self.classifier(x.unsqueeze(1)).float().log_softmax(1).movedim(1, -1)

    def log_posterior(self, z1: Tensor, x: Tensor, log_q: Tensor | None = None) -> Tensor:
        """log p(y | x, z) up to a constant, (N, H, W, K), by Bayes' rule through the styles.

        With a classifier, q(y | x) decides where there is a lesion, and Bayes' rule which one; see
        :meth:`log_separated`. Vessels are as bright as lesions, so that grey does not separate
        lesions from healthy lung.

        Args:
            z1: the value of site z1.
            x: slices (N, H, W).
            log_q: log q(y | x), (N, H, W, K); the classifier's by default.
        """
        return self.picture(z1).joint(x) if self.levels is None else self.log_separated(x, log_q)

    def log_separated(self, x: Tensor, log_q: Tensor | None = None) -> Tensor:
        """log q(y | x) with its infection divided into GGO and consolidation by Bayes' rule.

        The evidence is the grey relative to the slice's tissue levels. Returns (N, H, W, K).

        Args:
            x: slices (N, H, W).
            log_q: log q(y | x), (N, H, W, K); the classifier's by default.

        Raises:
            ValueError: the model has no classifier.
        """
        log_q = self.log_q(x) if log_q is None else log_q
        assert self.levels is not None  # there is a classifier
        infected = torch.logaddexp(log_q[..., GGO], log_q[..., CONSOLIDATION]).unsqueeze(-1)
        scores = self.levels(x, log_q.exp())
        # A log-softmax over a last axis of two is many times slower on CPUs.
        denser = scores[..., 1:] - scores[..., :1]
        shares = [functional.logsigmoid(-denser), functional.logsigmoid(denser)]
        return torch.cat([log_q[..., :GGO], *(infected + share for share in shares)], -1)

    def anchor(self, x: Tensor, allowed: Tensor) -> None:
        """Start every style at the grey values of its label.

        See :func:`~pyro_stitchnet.model.anchoring.anchor_styles`.

        Args:
            x: labelled slices (N, H, W) in [0, 1].
            allowed: labels that each pixel may have, bool (N, H, W, K).

        Raises:
            ValueError: the parameters of the likelihood do not follow from moments.
        """
        anchor_styles(self.heads, self.config.likelihood, x, allowed)
