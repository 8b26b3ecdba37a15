"""Counterfactuals: what stays, what changes, and that healing undoes a lesion put in."""

import pytest
import torch
from pyro.distributions import Normal
from torch import Tensor

from pyro_stitchnet.labels import CONSOLIDATION, GGO, HEALTHY
from pyro_stitchnet.model.distributions import Stitched
from pyro_stitchnet.model.likelihoods import FAMILIES
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import HEALED, counterfactual, edited, region
from pyro_stitchnet.presets import preset

MEANS = torch.tensor([0.9, 0.2, 0.4, 0.7])


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 64, 64)


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(4, (2, 64, 64))


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> StitchNet:
    """A model whose styles are known: Gaussians of the labels' means and deviations .01 to .04."""
    net = StitchNet(preset("tiny").model)
    deviations = torch.tensor([0.01, 0.02, 0.03, 0.04])

    def picture(z1: Tensor) -> Stitched:
        shape = (len(z1), 64, 64, 4)
        return Stitched(torch.zeros(shape), Normal(MEANS.expand(shape), deviations.expand(shape)))

    monkeypatch.setattr(net, "picture", picture)
    return net


@pytest.mark.parametrize("name", ["tiny", "tiny-logistic", "guided", "article", "reference"])
@pytest.mark.parametrize("pixels", ["kept", "mean", "drawn"])
def test_only_pixels_whose_label_changes_change(
    name: str, pixels: str, x: Tensor, labels: Tensor
) -> None:
    net = StitchNet(preset(name).model).train()
    wanted = edited(labels, HEALED)
    new = counterfactual(net, x, wanted, present=labels, pixels=pixels, samples=1)  # type: ignore[arg-type]
    assert torch.equal(new.changed, labels >= GGO)
    assert torch.equal(new.image[~new.changed], x[~new.changed])
    assert not torch.equal(new.image[new.changed], x[new.changed])
    assert ((new.image >= 0) & (new.image <= 1)).all()
    assert torch.equal(new.labels, wanted)
    assert net.training  # left as it was


def test_the_present_labels_are_the_models_own_by_default(x: Tensor) -> None:
    net = StitchNet(preset("guided").model)
    new = counterfactual(net, x, torch.full(x.shape, HEALTHY), samples=0)
    assert torch.equal(new.changed, new.present != HEALTHY)


def test_a_deviation_is_kept_in_standard_deviations(flat: StitchNet) -> None:
    x = torch.full((1, 64, 64), 0.46)  # GGO's mean and two of its deviations of .03
    lesion = torch.full(x.shape, GGO)
    healed, dense = (torch.full(x.shape, label) for label in (HEALTHY, CONSOLIDATION))
    for wanted, value in ((healed, 0.2 + 2 * 0.02), (dense, 0.7 + 2 * 0.04)):
        kept = counterfactual(flat, x, wanted, present=lesion)
        assert torch.allclose(kept.image, torch.tensor(value), atol=1e-5)
    mean = counterfactual(flat, x, healed, present=lesion, pixels="mean")
    assert torch.allclose(mean.image, torch.tensor(0.2), atol=1e-6)
    torch.manual_seed(0)
    drawn = counterfactual(flat, x, healed, present=lesion, pixels="drawn").image
    assert drawn.mean() == pytest.approx(0.2, abs=2e-3)
    assert drawn.std() == pytest.approx(0.02, abs=2e-3)


def test_where_the_label_is_not_sure_the_deviation_is_the_expected_one(flat: StitchNet) -> None:
    """Half healthy (at its mean), half GGO (four deviations below): two deviations below."""
    x = torch.full((1, 64, 64), 0.2)
    p = torch.zeros(1, 4, 64, 64)
    p[:, HEALTHY], p[:, GGO] = 0.49, 0.51
    new = counterfactual(flat, x, torch.full(x.shape, HEALTHY), present=p)
    assert new.changed.all()
    assert torch.allclose(new.image, torch.tensor(0.2 - 0.51 * 4 * 0.02), atol=1e-5)


def test_healing_undoes_a_lesion_put_in(flat: StitchNet) -> None:
    lung = torch.full((1, 64, 64), HEALTHY)
    x = 0.2 + 0.02 * torch.randn(lung.shape).clamp(-2, 2)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[10:30, 10:30] = True
    ill = edited(lung, {HEALTHY: CONSOLIDATION}, within=mask)
    put_in = counterfactual(flat, x, ill, present=lung).image
    assert put_in[0, mask].mean() == pytest.approx(0.7, abs=0.01)
    back = counterfactual(flat, put_in, edited(ill, HEALED), present=ill).image
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


def test_one_stray_pixel_does_not_turn_black_or_white(flat: StitchNet) -> None:
    x = torch.full((1, 64, 64), 0.4)
    x[0, 0, 0] = 1.0  # 20 deviations from GGO
    present = torch.full(x.shape, GGO)
    new = counterfactual(flat, x, torch.full(x.shape, HEALTHY), present=present).image
    assert new[0, 0, 0] == pytest.approx(0.2 + 4 * 0.02)


def test_later_rounds_see_the_changed_picture(
    x: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = StitchNet(preset("tiny").model)
    seen: list[Tensor] = []
    encode = net.svae.bottom_up

    def spied(x: Tensor) -> list[Normal]:
        seen.append(x)
        return encode(x)

    monkeypatch.setattr(net.svae, "bottom_up", spied)
    new = counterfactual(net, x, edited(labels, HEALED), present=labels, samples=0, rounds=2)
    assert len(seen) == 2
    assert torch.equal(seen[0], x)
    assert not torch.equal(seen[1], x)
    assert torch.equal(seen[1][~new.changed], x[~new.changed])


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
    this = region(labels, (2, 2))
    assert this.nonzero().tolist() == [[2, 2], [3, 3]]  # diagonal neighbours are connected
    lung = region(labels, (2, 2), of=(HEALTHY, GGO, CONSOLIDATION))
    assert lung.sum() == 24
    assert not lung[:, 6:].any()
    healed = edited(labels[None], HEALED, within=lung)[0]
    assert (healed >= GGO).nonzero().tolist() == [[1, 10], [5, 8]]
    with pytest.raises(ValueError, match="is background, none of ggo, consolidation"):
        region(labels, (0, 0))
    with pytest.raises(ValueError, match="no pixel"):
        region(labels, (8, 0))


def test_errors(x: Tensor, labels: Tensor) -> None:
    net = StitchNet(preset("tiny").model)
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


def test_the_families_say_their_spread() -> None:
    """The variance that deviations are measured by is that of draws."""
    torch.manual_seed(0)
    for name in ("bounded-beta", "beta", "discretised-logistic"):
        style = FAMILIES[name](torch.tensor(0.3), torch.tensor(0.2))
        draws = style.expand(torch.Size([20000])).sample()
        assert style.stddev.item() == pytest.approx(draws.std().item(), rel=0.15), name
