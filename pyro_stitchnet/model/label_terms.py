"""How the label y of each pixel enters the bound: one class per way, each with its own options.

Every class has the two halves of a Pyro program. ``observe`` is the model's: y given z, then
x = Phi(y, b, h, g, c). ``infer`` is the guide's: q(y | x, z), where there is one. Both run inside
the plates of slices, rows and columns.

Shapes: x is (N, H, W); ``picture`` has batch shape (N, H, W); ``allowed``, the labels that each
pixel may have, is bool (N, H, W, K), None allows all; ``log_q``, log q(y | x), is (N, H, W, K).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.infer import ELBO, Trace_ELBO
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.do_messenger import DoMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from pyro_stitchnet.model.classifier_loss import labelled_share, log_allowed
from pyro_stitchnet.model.distributions import (
    ExpectedStitched,
    ExpRelaxedCategorical,
    Picked,
    Stitched,
    pick,
)
from pyro_stitchnet.model.estimators import Float32TraceEnum_ELBO
from pyro_stitchnet.runtime.ranges import Count, Positive, Share, Weight, check_ranges

__all__ = [
    "AnyLabelTerm",
    "Enumerated",
    "Expected",
    "Guided",
    "Marginal",
    "Relaxed",
    "Unlabelled",
]

PLATES = 3  # slices, rows, columns

# The logit of a label outside the allowed set where the guide draws y, relative to the largest: a
# density on the open simplex has no exact zeros, and a sum over labels has no 0 * log 0.
FORBIDDEN = -20.0


@dataclass(frozen=True)
class _Term:
    """What most terms share: a check of ranges, and no y in the guide."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)

    def elbo(self) -> ELBO:
        """Return a new Trace_ELBO: such an object remembers the first model that it sees."""
        return Trace_ELBO(max_plate_nesting=PLATES)

    def infer(
        self, x: Tensor, picture: TorchDistribution, allowed: Tensor | None, log_q: Tensor | None
    ) -> None:
        """Do nothing: the guide has no site y."""


@dataclass(frozen=True)
class Enumerated(_Term):
    """y is a site that TraceEnum_ELBO sums out in parallel (eq. 6, 7).

    ``poutine.condition(model, {"y": y})`` gives the labelled term.

    Attributes:
        label_weight: factor on log p(y in A | z), or on log p(y | z) of a conditioned y; 1 in
            eq. 9.
    """

    kind: ClassVar[str] = "enumerated"
    label_weight: Weight = 1.0

    def elbo(self) -> ELBO:
        """Return a TraceEnum_ELBO, in float32."""
        return Float32TraceEnum_ELBO(max_plate_nesting=PLATES)

    def observe(self, x: Tensor | None, picture: Stitched, allowed: Tensor | None) -> None:
        """Draw y ~ Cat(pi(z)), weighted by 1[y in A]; then x from the style that y picks."""
        y = pyro.sample(
            "y", dist.Categorical(logits=picture.log_pi), infer={"enumerate": "parallel"}
        )
        if allowed is not None:
            pyro.factor("allowed", torch.where(pick(allowed, y), 0.0, -torch.inf))
        pyro.sample("x", Picked(y, picture.styles), obs=x)
        weight = self.label_weight - 1
        if weight and _conditioned_on_y():
            pyro.factor("label_weight", weight * pick(picture.log_pi, y))
        else:
            _weigh_labels(weight, picture, allowed)


@dataclass(frozen=True)
class Marginal(_Term):
    """y is summed out in closed form, log SUM_{k in A} pi_k p_k(x): equal to :class:`Enumerated`.

    Attributes:
        label_weight: factor on log p(y in A | z); 1 in eq. 9.
    """

    kind: ClassVar[str] = "marginal"
    label_weight: Weight = 1.0

    def observe(self, x: Tensor | None, picture: Stitched, allowed: Tensor | None) -> None:
        """Draw x from the mixture of the allowed labels."""
        _refuse_condition(self)
        pyro.sample("x", picture.given(allowed), obs=x)
        _weigh_labels(self.label_weight - 1, picture, allowed)


@dataclass(frozen=True)
class Relaxed(_Term):
    """y is a Gumbel-softmax draw in model and guide (Maddison et al., Jang et al., ICLR 2017).

    A bound of the relaxed model's evidence: its KL is that of the relaxed labels, which is larger
    than that of the labels.

    Attributes:
        label_weight: factor on log p(y in A | z); 1 in eq. 9.
        temperature: of the relaxation.
    """

    kind: ClassVar[str] = "relaxed"
    label_weight: Weight = 1.0
    temperature: Positive = 0.5

    def observe(self, x: Tensor | None, picture: Stitched, allowed: Tensor | None) -> None:
        """Draw a relaxed y within A; then x from the styles mixed by it."""
        _refuse_condition(self)
        log_y = pyro.sample("y", self._relaxed(picture.log_pi, allowed))
        pyro.sample("x", Stitched(log_y, picture.styles, allowed), obs=x)
        # y is drawn given A, so all of log p(y in A | z) is added here.
        _weigh_labels(self.label_weight, picture, allowed)

    def infer(
        self, x: Tensor, picture: Stitched, allowed: Tensor | None, log_q: Tensor | None
    ) -> None:
        """Draw a relaxed y by Bayes' rule through the styles."""
        scores = picture.styles.log_prob(x.unsqueeze(-1))
        if allowed is not None:  # x only separates the allowed labels
            best = scores.masked_fill(~allowed, -torch.inf).amax(-1, keepdim=True)
            scores = torch.where(allowed, scores - best, 0.0)
        pyro.sample("y", self._relaxed(picture.log_pi + scores, allowed))

    def _relaxed(self, logits: Tensor, allowed: Tensor | None) -> ExpRelaxedCategorical:
        if allowed is not None:
            logits = logits + torch.where(allowed, 0.0, FORBIDDEN)
        return ExpRelaxedCategorical(logits.new_tensor(self.temperature), logits=logits)


@dataclass(frozen=True)
class Expected(_Term):
    """The authors' program: SUM_k pi_k log p_k(x) on every pixel, and a focal loss on labels.

    Attributes:
        focal_weight: factor on the focal loss, a mean over the labelled slices.
        focal_gamma: exponent of the focal loss (Lin et al., ICCV 2017).
    """

    kind: ClassVar[str] = "expected"
    focal_weight: Weight = 100.0
    focal_gamma: Weight = 2.0

    def observe(self, x: Tensor | None, picture: Stitched, allowed: Tensor | None) -> None:
        """Score x by the expected log-likelihood, and the labels by the focal loss."""
        _refuse_condition(self)
        pyro.sample("x", ExpectedStitched(picture.log_pi, picture.styles), obs=x)
        if allowed is not None:
            log_p = log_allowed(picture.log_pi, allowed)
            # At 0 an exponent below 1 has an infinite gradient.
            others = (1 - log_p.exp()).clamp(min=torch.finfo(log_p.dtype).tiny)
            focal = others**self.focal_gamma * -log_p
            pyro.factor("focal", -(self.focal_weight / labelled_share(allowed) * focal))


@dataclass(frozen=True)
class Guided(_Term):
    """y is summed out under the guide's q(y | x, z): q(y | x) p(x | y, z) within A, normalised.

    The bound of M2 (Kingma et al. 2014). q(y | x) learns labels by a loss that is added to the
    bound, :class:`~pyro_stitchnet.model.classifier_loss.ClassifierLoss`. Where a pixel may have
    several labels, it may also learn from pseudo-labels,
    :mod:`pyro_stitchnet.training.self_training`.

    Attributes:
        label_weight: of the classifier's loss: factor on -log q(y in A | x).
        dice_weight: of the classifier's loss: factor on soft Dice.
        guide_weight: factor on the gradient of the bound with respect to q(y | x); 0 trains
            q(y | x) without the bound.
        consistency_weight: factor on the loss of perturbed views of slices where a pixel may have
            several labels; their targets are pseudo-labels.
        pseudo_labels: whose likeliest labels these are: of q(y | x) alone, or of the posterior.
        confidence: least probability of a pseudo-label; the posterior's GGO and consolidation count
            together, as infection.
        bound_every: n, where the bound takes every n-th slice of each kind in a batch: fully
            labelled, with label sets, unlabelled. Styles and z need fewer slices than q(y | x).
    """

    kind: ClassVar[str] = "guided"
    label_weight: Weight = 1.0
    dice_weight: Weight = 1.0
    guide_weight: Weight = 1.0
    consistency_weight: Weight = 0.0
    pseudo_labels: Literal["classifier", "posterior"] = "classifier"
    confidence: Share = 0.95
    bound_every: Count = 1

    def elbo(self) -> ELBO:
        """Return a TraceEnum_ELBO, in float32: y is enumerated in the guide."""
        return Float32TraceEnum_ELBO(max_plate_nesting=PLATES)

    def observe(self, x: Tensor | None, picture: Stitched, allowed: Tensor | None) -> None:
        """Draw y ~ Cat(pi(z)); then x from the style that y picks."""
        _refuse_condition(self)
        y = pyro.sample("y", dist.Categorical(logits=picture.log_pi))
        pyro.sample("x", Picked(y, picture.styles), obs=x)

    def infer(
        self, x: Tensor, picture: Stitched, allowed: Tensor | None, log_q: Tensor | None
    ) -> None:
        """Draw y in proportion to q(y | x) p(x | y, z) within A.

        Raises:
            ValueError: there is no q(y | x).
        """
        if log_q is None:
            raise ValueError(
                "the label term 'guided' needs q(y | x); build the model with classifier=True"
            )
        weight = self.guide_weight
        log_q = weight * log_q + (1 - weight) * log_q.detach()  # scales the gradient only
        # Bayes' rule: without it, a q that is still wrong makes every style fit all tissues.
        log_q = log_q + picture.styles.log_prob(x.unsqueeze(-1)).detach()
        if allowed is not None:
            log_q = log_q.masked_fill(~allowed, -torch.inf)
        # Pyro leaves out entries of probability 0 one by one, which takes a tenth of a step.
        floor = log_q.detach().amax(-1, keepdim=True) + FORBIDDEN
        log_q = torch.maximum(log_q, floor)
        pyro.sample("y", dist.Categorical(logits=log_q), infer={"enumerate": "parallel"})


@dataclass(frozen=True)
class Unlabelled(_Term):
    """There is no y: x given z, for the SVAE alone."""

    kind: ClassVar[str] = "unlabelled"

    def observe(self, x: Tensor | None, picture: TorchDistribution, allowed: Tensor | None) -> None:
        """Draw x from the picture.

        Raises:
            ValueError: the picture is a StitchNet's, which has labels.
        """
        _refuse_condition(self)
        if isinstance(picture, Stitched):
            raise ValueError("labels 'unlabelled' are for the SVAE alone; a StitchNet has labels")
        pyro.sample("x", picture, obs=x)


AnyLabelTerm = Enumerated | Marginal | Relaxed | Expected | Guided | Unlabelled
"""Any of the label terms."""

LABEL_TERMS: Mapping[str, type[AnyLabelTerm]] = {
    term.kind: term for term in (Enumerated, Marginal, Relaxed, Expected, Guided, Unlabelled)
}
"""The label terms by their name in configuration files."""


def _weigh_labels(weight: float, picture: Stitched, allowed: Tensor | None) -> None:
    """Add ``weight`` times log p(y in A | z)."""
    if allowed is not None and weight:
        pyro.factor("label_weight", weight * log_allowed(picture.log_pi, allowed))


def _refuse_condition(term: object) -> None:
    """Refuse ``poutine.condition`` on y, which would be ignored or give a wrong number."""
    if _conditioned_on_y():
        raise ValueError(
            f"labels={term}: this label term cannot be conditioned on y; use Enumerated(), or "
            "pass the labels as `allowed`"
        )


def _conditioned_on_y() -> bool:
    """Whether ``poutine.condition`` or ``poutine.do`` sets y."""
    handlers = (h for h in _PYRO_STACK if isinstance(h, ConditionMessenger | DoMessenger))
    return any("y" in handler.data for handler in handlers)
