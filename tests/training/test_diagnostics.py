import pytest
import torch

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.likelihoods import FAMILIES, InteriorBeta
from pyro_stitchnet.model.objective import negative_elbo
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import style_gaps
from pyro_stitchnet.presets import Objective, preset
from pyro_stitchnet.training.diagnostics import diagnose, label_drop

K = len(LABELS)


def picture(means: list[float], precision: float = 50.0) -> Stitched:
    mean = torch.tensor(means).expand(1, 2, 2, K)
    return Stitched(torch.zeros(1, 2, 2, K), InteriorBeta(mean * precision, (1 - mean) * precision))


def batch(labels: list[list[int]]) -> Batch:
    y = torch.tensor([labels])
    means = torch.tensor([0.1, 0.2, 0.5, 0.9])
    return Batch(means[y], torch.nn.functional.one_hot(y, K).bool())


def test_style_gaps_by_hand() -> None:
    gaps = style_gaps(torch.tensor([0.1, 0.2, 0.5, 0.9]).expand(1, 2, 2, K))
    assert gaps["background-healthy"] == pytest.approx(0.1, abs=1e-6)
    assert gaps["ggo-consolidation"] == pytest.approx(0.4, abs=1e-6)
    assert len(gaps) == 6
    assert set(style_gaps(torch.full((1, 2, 2, K), 0.3)).values()) == {0.0}


def test_label_drop_is_zero_for_collapsed_styles_and_large_for_distinct_ones() -> None:
    data = batch([[0, 1], [2, 3]])
    assert label_drop(picture([0.3] * 4), data) == pytest.approx(0, abs=1e-5)
    assert label_drop(picture([0.1, 0.2, 0.5, 0.9]), data) > 5


def test_label_drop_by_hand_and_only_where_labelled() -> None:
    styles = picture([0.1, 0.2, 0.5, 0.9])
    data = batch([[2, 1], [2, 3]])
    data.allowed[0, 0, 0] = True  # unlabelled
    data.allowed[0, 0, 1] = torch.tensor([False, False, True, True])  # a set
    scores = styles.styles.log_prob(data.x[..., None])[0, 1]
    drops = [
        scores[i, k] - scores[i, [j for j in range(K) if j != k]].mean()
        for i, k in enumerate([2, 3])
    ]
    assert label_drop(styles, data) == pytest.approx(float(sum(drops) / 2), rel=1e-5)


def test_terms_add_up_to_the_bound() -> None:
    """log_px + log_py - kl is the ELBO up to the sampling of the KL."""
    torch.manual_seed(0)
    net = StitchNet(preset("tiny").model).eval()
    x = torch.rand(2, 64, 64)
    data = Batch(x, torch.nn.functional.one_hot(torch.randint(0, K, x.shape), K).bool())
    figures, losses = [], []
    for seed in range(8):
        torch.manual_seed(seed)
        figures.append(diagnose(net, data))
        losses.append(negative_elbo(net, data.x, data.allowed, Objective()).item())
    bound = sum(f["elbo/log_px"] + f["elbo/log_py"] - f["elbo/kl"] for f in figures) / 8
    assert bound == pytest.approx(-sum(losses) / 8, abs=0.02)
    assert figures[0]["elbo/kl"] == pytest.approx(sum(figures[0][f"kl/z{n}"] for n in range(1, 6)))
    assert sum(figures[0][f"share/{label}"] for label in LABELS) == pytest.approx(1, abs=1e-5)


def test_leaves_mode_and_random_state_alone() -> None:
    net = StitchNet(preset("tiny").model).train()
    data = Batch(torch.rand(2, 32, 32), torch.ones(2, 32, 32, K).bool())
    state = torch.get_rng_state()
    diagnose(net, data)
    assert net.training
    assert torch.equal(state, torch.get_rng_state())


def test_shares_of_told_pixels_are_of_the_likeliest_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lesion that is a little likely everywhere and nowhere the likeliest is never predicted."""
    net = StitchNet(preset("tiny").model)
    logits = torch.tensor([0.5, 0.3, 0.1, 0.1]).log().expand(1, 64, 64, K)
    stitched = Stitched(logits, FAMILIES["beta"](logits, logits))
    monkeypatch.setattr(net, "picture", lambda _: stitched)
    allowed = torch.ones(1, 64, 64, K, dtype=torch.bool)
    allowed[:, :32] = torch.tensor([False, False, False, True])
    figures = diagnose(net, Batch(torch.rand(1, 64, 64), allowed))
    assert [figures[f"told/{label}"] for label in LABELS] == [0, 0, 0, 1]
    assert [figures[f"told_share/{label}"] for label in LABELS] == [1, 0, 0, 0]
    assert figures["share/consolidation"] == pytest.approx(0.1)
