"""The contract of every label term, on 2 x 2 pixels: bounds by hand, gradients, refusals."""

import itertools
import math
from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.classifier_loss import ClassifierLoss
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.label_terms import (
    LABEL_TERMS,
    AnyLabelTerm,
    Enumerated,
    Expected,
    Guided,
    Marginal,
    Relaxed,
)
from pyro_stitchnet.model.likelihoods import InteriorBeta
from pyro_stitchnet.model.svae import pixel_plates

K = len(LABELS)
EXACT = ("enumerated", "marginal")  # log SUM_{k in A} pi_k p_k(x), without any sampling
SETS: dict[str, Tensor | None] = {
    "none": None,
    "all": torch.ones(1, 2, 2, K).bool(),
    "labelled": torch.nn.functional.one_hot(torch.tensor([[[0, 1], [2, 3]]]), K).bool(),
    "sets": torch.tensor([[[[1, 1, 0, 0], [0, 0, 1, 1]], [[0, 1, 1, 1], [1, 1, 1, 1]]]]).bool(),
}


class TwoByTwo:
    """One slice of 2 x 2 pixels: parameters of a picture, q(y | x), and the slice itself."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.logits = torch.randn(1, 2, 2, K, requires_grad=True)
        self.a, self.b = ((0.5 + 4 * torch.rand(1, 2, 2, K)).requires_grad_() for _ in range(2))
        self.q_logits = torch.randn(1, 2, 2, K, requires_grad=True)
        self.x = torch.rand(1, 2, 2)

    @property
    def picture(self) -> Stitched:
        return Stitched(self.logits, InteriorBeta(self.a, self.b))

    @property
    def log_q(self) -> Tensor:
        return self.q_logits.log_softmax(-1)

    def loss(
        self,
        term: AnyLabelTerm,
        allowed: Tensor | None,
        condition: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """The term's own negative bound of the whole slice, in nats."""
        picture, log_q = self.picture, self.log_q

        def model() -> None:
            slices, rows, columns = pixel_plates((1, 2, 2))
            with slices, rows, columns:
                term.observe(self.x, picture, allowed)

        def guide() -> None:
            slices, rows, columns = pixel_plates((1, 2, 2))
            with slices, rows, columns:
                term.infer(self.x, picture, allowed, log_q)

        conditioned = poutine.condition(model, condition) if condition else model
        return term.elbo().differentiable_loss(conditioned, guide)

    def scores(self) -> Tensor:
        """log pi_k + log p_k(x), (1, 2, 2, K)."""
        with torch.no_grad():
            return self.picture.log_pi + self.picture.styles.log_prob(self.x[..., None])

    def log_evidence(self, allowed: Tensor | None) -> float:
        """log of the sum of p(x, y) over all 4^4 label maps that are allowed."""
        scores = self.scores().reshape(4, K)
        sets = torch.ones(4, K).bool() if allowed is None else allowed.reshape(4, K)
        maps = [
            scores[range(4), labels].sum()
            for labels in itertools.product(range(K), repeat=4)
            if all(sets[i, k] for i, k in enumerate(labels))
        ]
        return float(torch.stack(maps).logsumexp(0))


@pytest.fixture
def pixels() -> TwoByTwo:
    return TwoByTwo()


@pytest.fixture(params=[kind for kind in LABEL_TERMS if kind != "unlabelled"])
def term(request: pytest.FixtureRequest) -> AnyLabelTerm:
    return LABEL_TERMS[request.param]()


@pytest.fixture(params=SETS)
def allowed(request: pytest.FixtureRequest) -> Tensor | None:
    return SETS[request.param]


@pytest.fixture(autouse=True)
def no_plate_warnings() -> Iterator[None]:
    with pyro.validation_enabled(True):
        yield


def test_finite_with_a_gradient_to_every_parameter(
    term: AnyLabelTerm, pixels: TwoByTwo, allowed: Tensor | None
) -> None:
    loss = pixels.loss(term, allowed)
    loss.backward()
    parameters = {"logits": pixels.logits, "a": pixels.a, "b": pixels.b}
    if term.kind == "guided" and (allowed is None or (allowed.sum(-1) > 1).any()):
        parameters["q"] = pixels.q_logits
    assert loss.isfinite()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", EXACT)
def test_exact_terms_are_the_sum_over_all_label_maps(
    kind: str, pixels: TwoByTwo, allowed: Tensor | None
) -> None:
    loss = pixels.loss(LABEL_TERMS[kind](), allowed)
    assert float(loss) == pytest.approx(-pixels.log_evidence(allowed), abs=1e-4)


def test_a_set_of_all_labels_is_no_annotation(term: AnyLabelTerm, pixels: TwoByTwo) -> None:
    losses = []
    for allowed in (SETS["none"], SETS["all"]):
        torch.manual_seed(1)
        losses.append(float(pixels.loss(term, allowed)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_float32_under_autocast(term: AnyLabelTerm, pixels: TwoByTwo) -> None:
    losses = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(pixels.loss(term, SETS["sets"]))
    assert losses[1].dtype == torch.float32
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)


def test_each_estimator_is_new(term: AnyLabelTerm) -> None:
    """An ELBO object remembers the plates of the first model that it sees."""
    assert term.elbo() is not term.elbo()


def test_conditioning_on_y_is_the_labelled_term(pixels: TwoByTwo) -> None:
    y = torch.tensor([[[0, 1], [2, 3]]])
    loss = pixels.loss(Enumerated(), None, {"y": y})
    assert float(loss) == pytest.approx(-pixels.log_evidence(SETS["labelled"]), abs=1e-4)


def test_label_weight_counts_a_conditioned_y_too(pixels: TwoByTwo) -> None:
    y = torch.tensor([[[0, 1], [2, 3]]])
    losses = [
        float(pixels.loss(Enumerated(label_weight=weight), None, {"y": y})) for weight in (1, 11)
    ]
    same = float(pixels.loss(Enumerated(label_weight=11), SETS["labelled"]))
    assert losses[1] == pytest.approx(same, abs=1e-4)
    assert losses[1] > losses[0]


@pytest.mark.parametrize("kind", [kind for kind in LABEL_TERMS if kind != "enumerated"])
def test_conditioning_on_y_is_refused_by_all_others(kind: str, pixels: TwoByTwo) -> None:
    y = torch.zeros(1, 2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="Enumerated"):
        pixels.loss(LABEL_TERMS[kind](), None, {"y": y})


@pytest.mark.parametrize("make", [Enumerated, Marginal, Relaxed])
def test_label_weight_multiplies_the_label_term(
    make: Callable[..., AnyLabelTerm], pixels: TwoByTwo
) -> None:
    allowed = SETS["sets"]
    assert allowed is not None

    def loss(weight: float) -> float:
        torch.manual_seed(1)
        return float(pixels.loss(make(label_weight=weight), allowed))

    log_set = (pixels.picture.log_pi.exp() * allowed).sum(-1).log().sum()
    assert loss(11.0) - loss(1.0) == pytest.approx(-10 * float(log_set), rel=1e-4)


def test_relaxed_y_is_exact_where_x_does_not_separate_the_labels(pixels: TwoByTwo) -> None:
    """With equal styles the guide's y is the prior's, and every draw gives log p(x)."""
    with torch.no_grad():
        pixels.a.fill_(2)
        pixels.b.fill_(3)
    for _ in range(5):
        loss = pixels.loss(Relaxed(temperature=0.2), None)
        assert float(loss) == pytest.approx(-pixels.log_evidence(None), abs=1e-3)


def test_relaxed_y_bounds_the_evidence_from_below(pixels: TwoByTwo) -> None:
    """Its KL is that of the relaxed labels, which is larger than that of the labels."""
    bounds = [-float(pixels.loss(Relaxed(temperature=0.2), None)) for _ in range(300)]
    assert all(map(math.isfinite, bounds))
    assert sum(bounds) / len(bounds) < pixels.log_evidence(None)


def test_guided_bound_by_hand(pixels: TwoByTwo, allowed: Tensor | None) -> None:
    """SUM_k r_k (log pi_k + log p_k(x) - log r_k), r_k in A proportional to q_k p_k(x)."""
    sets = torch.ones(1, 2, 2, K).bool() if allowed is None else allowed
    scores, log_pi = pixels.scores(), pixels.picture.log_pi
    weights = (pixels.log_q + scores - log_pi).masked_fill(~sets, -torch.inf)
    r = weights.softmax(-1)
    terms = torch.where(sets, r * (scores - r.log()), 0.0)
    loss = pixels.loss(Guided(), allowed)
    assert float(loss) == pytest.approx(-float(terms.sum()), abs=1e-4)


def test_guided_bound_is_tight_where_q_is_p_of_y_given_z(pixels: TwoByTwo) -> None:
    evidence = pixels.log_evidence(None)
    assert -float(pixels.loss(Guided(), None)) < evidence - 0.01
    pixels.q_logits = pixels.logits
    assert -float(pixels.loss(Guided(), None)) == pytest.approx(evidence, abs=1e-4)


@pytest.mark.parametrize(("weight", "learns"), [(0.0, False), (0.5, True)])
def test_guide_weight_scales_the_gradient_of_q_alone(
    weight: float, learns: bool, pixels: TwoByTwo
) -> None:
    gradients = []
    for w in (weight, 1.0):
        fresh = TwoByTwo()
        fresh.loss(Guided(guide_weight=w), None).backward()
        assert fresh.q_logits.grad is not None
        assert fresh.logits.grad is not None
        gradients.append((fresh.q_logits.grad, fresh.logits.grad))
    (scaled, picture), (full, same) = gradients
    torch.testing.assert_close(scaled, weight * full)
    assert torch.equal(picture, same)
    assert scaled.any() == learns


def test_guided_needs_a_classifier(pixels: TwoByTwo) -> None:
    with pytest.raises(ValueError, match="classifier=True"):
        Guided().infer(pixels.x, pixels.picture, None, None)


def test_expected_by_hand(pixels: TwoByTwo, allowed: Tensor | None) -> None:
    """SUM_k pi_k log p_k(x), and the focal loss as a mean over the labelled slices."""
    pi = pixels.picture.log_pi.exp()
    expected = (pi * pixels.picture.styles.log_prob(pixels.x[..., None])).sum()
    focal = torch.zeros(())
    if allowed is not None:
        p = (pi * allowed).sum(-1)
        focal = (7 * (1 - p).clamp_min(0) ** 3 * -p.log()).sum()
    loss = pixels.loss(Expected(focal_weight=7, focal_gamma=3), allowed)
    assert float(loss) == pytest.approx(float(focal - expected), abs=1e-4)


def test_every_focal_exponent_has_a_finite_gradient(pixels: TwoByTwo) -> None:
    pixels.loss(Expected(focal_gamma=0.5), SETS["sets"]).backward()  # one pixel is unlabelled
    assert pixels.logits.grad is not None
    assert pixels.logits.grad.isfinite().all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Marginal(label_weight=-1),
        lambda: Relaxed(temperature=0),
        lambda: Expected(focal_weight=math.inf),
        lambda: Guided(consistency_weight=-0.1),
        lambda: Guided(confidence=1.1),
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[], AnyLabelTerm]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


def test_classifier_loss_by_hand() -> None:
    """Cross-entropy of the sets over annotated pixels, and soft Dice over single labels."""
    torch.manual_seed(0)
    log_q = torch.randn(2, 2, 2, K).log_softmax(-1)
    sets, labels = SETS["sets"], SETS["labelled"]
    assert sets is not None
    assert labels is not None
    allowed = torch.cat([sets, labels])
    annotated = ~allowed.all(-1)
    entropy = -(log_q.exp() * allowed).sum(-1).log()[annotated].mean()
    p, truth = log_q[1].exp().reshape(4, K), labels[0].float().reshape(4, K)
    dice = ((2 * (p * truth).sum(0) + 1) / ((p + truth).sum(0) + 1)).mean()
    loss = ClassifierLoss(label_weight=3, dice_weight=0.5)(log_q, allowed)
    assert float(loss) == pytest.approx(float(3 * entropy + 0.5 * (1 - dice)), rel=1e-5)


def test_classifier_loss_without_annotations_is_zero() -> None:
    log_q = torch.randn(2, 2, 2, K, requires_grad=True)
    loss = ClassifierLoss()(log_q.log_softmax(-1), torch.ones(2, 2, 2, K).bool())
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(ClassifierLoss()(log_q[:0], torch.ones(0, 2, 2, K).bool()).detach()) == 0


def test_unlabelled_term_refuses_a_picture_with_labels(pixels: TwoByTwo) -> None:
    with pytest.raises(ValueError, match="SVAE alone"):
        pixels.loss(LABEL_TERMS["unlabelled"](), None)


def test_unlabelled_term_scores_any_distribution() -> None:
    normal = dist.Normal(torch.zeros(1, 2, 2), 1.0)
    term = LABEL_TERMS["unlabelled"]()
    x = torch.rand(1, 2, 2)

    def model() -> None:
        slices, rows, columns = pixel_plates((1, 2, 2))
        with slices, rows, columns:
            term.observe(x, normal, None)

    loss = term.elbo().loss(model, lambda: None)
    assert loss == pytest.approx(-float(normal.log_prob(x).sum()), abs=1e-5)
