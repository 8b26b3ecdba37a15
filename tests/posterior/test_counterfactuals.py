"""Counterfactuals: what stays, what changes, and that healing removes an inserted lesion."""

from collections.abc import Callable

import pytest
import torch
from pyro.distributions import Normal
from torch import Tensor

from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.likelihoods import FAMILIES
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import (
    HEALED,
    Pixels,
    ReadOutOptions,
    counterfactual,
    edited,
    region,
    segment,
)

MEANS = torch.tensor([0.9, 0.2, 0.4, 0.7])


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 64, 64)


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(4, (2, 64, 64))


@pytest.fixture
def flat(tiny: StitchNet, monkeypatch: pytest.MonkeyPatch) -> StitchNet:
    """A model with given styles: Gaussians of the labels' means and deviations .01 to .04."""
    deviations = torch.tensor([0.01, 0.02, 0.03, 0.04])

    def picture(z1: Tensor) -> Stitched:
        shape = (len(z1), 64, 64, 4)
        return Stitched(torch.zeros(shape), Normal(MEANS.expand(shape), deviations.expand(shape)))

    monkeypatch.setattr(tiny, "picture", picture)
    return tiny


@pytest.mark.parametrize("name", ["tiny", "tiny-logistic", "guided", "article", "reference"])
@pytest.mark.parametrize("pixels", ["kept", "mean", "drawn"])
def test_only_pixels_whose_label_changes_change(
    name: str,
    pixels: Pixels,
    x: Tensor,
    labels: Tensor,
    shared_net: Callable[[str], StitchNet],
) -> None:
    net, healed = shared_net(name), edited(labels, HEALED)
    new = counterfactual(net, x, healed, present=labels, pixels=pixels, samples=1)
    assert torch.equal(new.changed, labels >= GGO)
    assert torch.equal(new.image[~new.changed], x[~new.changed])
    assert not torch.equal(new.image[new.changed], x[new.changed])
    assert ((new.image >= 0) & (new.image <= 1)).all()
    assert torch.equal(new.labels, healed)
    assert net.training  # its mode is restored


def test_the_present_labels_are_the_segmentation_by_default(guided: StitchNet, x: Tensor) -> None:
    new = counterfactual(guided, x, torch.full(x.shape, HEALTHY), samples=0)
    assert torch.equal(new.present, segment(guided, x, ReadOutOptions(samples=0)).labels)
    assert torch.equal(new.changed, new.present != HEALTHY)


def test_a_deviation_is_kept_in_standard_deviations(flat: StitchNet) -> None:
    x = torch.full((1, 64, 64), 0.46)  # GGO's mean and two of its deviations of .03
    lesion = torch.full(x.shape, GGO)
    healed, dense = (torch.full(x.shape, label) for label in (HEALTHY, CONSOLIDATION))
    for labels, value in ((healed, 0.2 + 2 * 0.02), (dense, 0.7 + 2 * 0.04)):
        kept = counterfactual(flat, x, labels, present=lesion)
        assert torch.allclose(kept.image, torch.tensor(value), atol=1e-5)
    mean = counterfactual(flat, x, healed, present=lesion, pixels="mean")
    assert torch.allclose(mean.image, torch.tensor(0.2), atol=1e-6)
    torch.manual_seed(0)
    drawn = counterfactual(flat, x, healed, present=lesion, pixels="drawn").image
    assert drawn.mean() == pytest.approx(0.2, abs=2e-3)
    assert drawn.std() == pytest.approx(0.02, abs=2e-3)


def test_of_an_uncertain_label_the_expected_score_is_kept(flat: StitchNet) -> None:
    """Half healthy (at its mean), half GGO (four deviations below): two deviations below."""
    x = torch.full((1, 64, 64), 0.2)
    p = torch.zeros(1, 4, 64, 64)
    p[:, HEALTHY], p[:, GGO] = 0.49, 0.51
    new = counterfactual(flat, x, torch.full(x.shape, HEALTHY), present=p)
    assert new.changed.all()
    assert torch.allclose(new.image, torch.tensor(0.2 - 0.51 * 4 * 0.02), atol=1e-5)


def test_healing_removes_an_inserted_lesion(flat: StitchNet) -> None:
    lung = torch.full((1, 64, 64), HEALTHY)
    x = 0.2 + 0.02 * torch.randn(lung.shape).clamp(-2, 2)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[10:30, 10:30] = True
    ill = edited(lung, {HEALTHY: CONSOLIDATION}, within=mask)
    inserted = counterfactual(flat, x, ill, present=lung).image
    assert inserted[0, mask].mean() == pytest.approx(0.7, abs=0.01)
    back = counterfactual(flat, inserted, edited(ill, HEALED), present=ill).image
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


def test_the_score_of_an_outlier_is_limited(flat: StitchNet) -> None:
    x = torch.full((1, 64, 64), 0.4)
    x[0, 0, 0] = 1.0  # 20 deviations from GGO
    present = torch.full(x.shape, GGO)
    new = counterfactual(flat, x, torch.full(x.shape, HEALTHY), present=present).image
    assert new[0, 0, 0] == pytest.approx(0.2 + 4 * 0.02)


def test_later_rounds_infer_styles_from_the_changed_image(
    tiny: StitchNet, x: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: list[Tensor] = []
    encode = tiny.svae.bottom_up

    def recording(x: Tensor) -> list[Normal]:
        inputs.append(x)
        return encode(x)

    monkeypatch.setattr(tiny.svae, "bottom_up", recording)
    new = counterfactual(tiny, x, edited(labels, HEALED), present=labels, samples=0, rounds=2)
    assert len(inputs) == 2
    assert torch.equal(inputs[0], x)
    assert not torch.equal(inputs[1], x)
    assert torch.equal(inputs[1][~new.changed], x[~new.changed])


def test_edits(labels: Tensor) -> None:
    before = labels.clone()
    healed = edited(labels, HEALED)
    assert torch.equal(healed, labels.clamp_max(HEALTHY))
    swapped = edited(labels, {GGO: CONSOLIDATION, CONSOLIDATION: GGO})
    assert torch.equal(swapped == GGO, labels == CONSOLIDATION)
    assert torch.equal(swapped == CONSOLIDATION, labels == GGO)
    within = torch.rand(labels.shape) < 0.5
    part = edited(labels, HEALED, within)
    assert torch.equal(part[~within], labels[~within])
    assert torch.equal(part[within], healed[within])
    assert torch.equal(labels, before)


def test_this_lesion_and_this_lung() -> None:
    labels = torch.zeros(8, 12, dtype=torch.long)
    labels[1:7, 1:5] = labels[1:7, 7:11] = HEALTHY  # two lungs
    labels[2, 2], labels[3, 3], labels[5, 8], labels[1, 10] = GGO, CONSOLIDATION, GGO, GGO
    lesion = region(labels, (2, 2))
    assert lesion.nonzero().tolist() == [[2, 2], [3, 3]]  # diagonal neighbours are connected
    lung = region(labels, (2, 2), of=(HEALTHY, GGO, CONSOLIDATION))
    assert lung.sum() == 24
    assert not lung[:, 6:].any()
    healed = edited(labels[None], HEALED, within=lung)[0]
    assert (healed >= GGO).nonzero().tolist() == [[1, 10], [5, 8]]
    with pytest.raises(ValueError, match="is background; choose a pixel of ggo, consolidation"):
        region(labels, (0, 0))
    with pytest.raises(ValueError, match="is outside the slice"):
        region(labels, (8, 0))


def test_errors(tiny: StitchNet, x: Tensor, labels: Tensor) -> None:
    net = tiny
    with pytest.raises(ValueError, match="no label 7"):
        edited(labels, {GGO: 7})
    with pytest.raises(ValueError, match="give bool"):
        edited(labels, HEALED, labels[0])
    with pytest.raises(ValueError, match="pixels"):
        counterfactual(net, x, labels, pixels="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rounds"):
        counterfactual(net, x, labels, rounds=0)
    with pytest.raises(ValueError, match="must have the slices'"):
        counterfactual(net, x, labels[:1])
    with pytest.raises(ValueError, match="give labels"):
        counterfactual(net, x, labels, present=torch.rand(2, 3, 64, 64))
    with pytest.raises(ValueError, match="0 to 4"):
        counterfactual(net, x, labels.clone().index_fill_(1, torch.tensor(0), 4), present=labels)
    with pytest.raises(ValueError, match="give integers"):
        counterfactual(net, x, labels.float())


def test_the_variance_of_a_likelihood_is_that_of_its_draws() -> None:
    torch.manual_seed(0)
    for name in ("bounded-beta", "beta", "discretised-logistic"):
        style = FAMILIES[name](torch.tensor(0.3), torch.tensor(0.2))
        draws = style.expand(torch.Size([20000])).sample()
        assert style.stddev.item() == pytest.approx(draws.std().item(), rel=0.15), name
