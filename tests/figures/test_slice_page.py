"""The page on one slice: its content, and that it is self-contained."""

import re
from pathlib import Path

import pytest
import torch

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.figures.slice_page import draw, explain, web_page, write_explanation
from pyro_stitchnet.labels import GGO
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.presets import preset

SLICES = phantom_slices([1], 1, size=64)
IMAGE = SLICES.images[0]


@pytest.fixture(scope="module")
def tiny() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("tiny").model)


@pytest.mark.parametrize("name", ["guided", "tiny"])
def test_the_page_with_and_without_a_classifier(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = StitchNet(preset(name).model)
    explanation = explain(
        net, IMAGE, draws=2, truth=SLICES.labels()[0], reference=torch.rand(3, 64, 64)
    )
    assert any(key.startswith("distance from 3 reference") for key in explanation.measures)
    titles = [ax.get_title() for ax in draw(explanation, "one").axes]
    assert titles[:3] == ["slice", "segmentation", "truth"]
    assert {"GGO style", "healed"} <= set(titles)
    unchanged = explanation.labels[0] < GGO
    healed = explanation.counterfactuals["healed"][0]
    assert torch.equal(healed[unchanged], IMAGE[unchanged])
    write_explanation(explanation, tmp_path / "new", "one", {})
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "explain.html", "explain.png",
    ]  # fmt: skip


def test_the_web_page_needs_no_other_file_and_escapes_names(tiny: StitchNet) -> None:
    explanation = explain(tiny, IMAGE, draws=2)
    text = web_page(explanation, "<b>slice</b>", {"model": "a & b"})
    assert "<b>" not in text
    assert "a &amp; b" in text
    assert "not a medical device" in text
    (source,) = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert source.startswith("data:image/png;base64,iVBOR")
    assert all(name in text for name in explanation.measures)
    assert "truth" not in [ax.get_title() for ax in draw(explanation, "one").axes]


def test_the_seed_alone_determines_the_result(tiny: StitchNet) -> None:
    one, same, other = (
        explain(tiny, IMAGE, ReadOutOptions(seed=seed), draws=2) for seed in (0, 0, 1)
    )
    assert one.measures == same.measures
    assert one.measures != other.measures


def test_the_labels_are_those_of_the_options(tiny: StitchNet) -> None:
    """Patches of consolidation below the least one become GGO."""
    options = ReadOutOptions(decision="dice", least_patch=64 * 64 + 1)
    explanation = explain(tiny, IMAGE, options, draws=2)
    assert explanation.labels.max() == GGO


def test_a_single_draw_is_refused(tiny: StitchNet) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        explain(tiny, IMAGE, draws=1)
