"""One page on a slice: what is on it, and that it stands alone."""

import re
from pathlib import Path

import pytest
import torch

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.figures.slice_page import explain, page, web_page, write_explanation
from pyro_stitchnet.labels import GGO
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset

SLICES = phantom_slices([1], 1, size=64)


@pytest.mark.parametrize("name", ["guided", "article", "reference", "tiny"])
def test_the_page_of_any_preset(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = StitchNet(preset(name).model)
    usual = torch.rand(3, 64, 64)
    said = explain(net, SLICES.images[0], truth=SLICES.labels()[0], usual=usual, samples=2)
    assert any(name.startswith("distance from 3 usual slices") for name in said.figures)
    titles = [ax.get_title() for ax in page(said, "one").axes]
    assert titles[:3] == ["slice", "segmentation", "truth"]
    assert "GGO style" in titles
    assert "healed" in titles
    assert all(isinstance(value, float) for value in said.figures.values())
    untouched = said.answer.labels[0] < GGO
    assert torch.equal(said.changed["healed"][0][untouched], SLICES.images[0][untouched])
    write_explanation(said, tmp_path / "new", "one", {})
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "explain.html", "explain.png",
    ]  # fmt: skip


def test_the_web_page_needs_no_other_file_and_escapes_names() -> None:
    net = StitchNet(preset("tiny").model)
    said = explain(net, SLICES.images[0], samples=1)
    text = web_page(said, "<b>slice</b>", {"model": "a & b"})
    assert "<b>" not in text
    assert "a &amp; b" in text
    assert "not a medical device" in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,iVBOR")
    for name in said.figures:
        assert name in text
    assert "truth" not in [ax.get_title() for ax in page(said, "one").axes]


def test_the_seed_is_all_that_it_depends_on() -> None:
    net = StitchNet(preset("tiny").model)
    one, same, other = (explain(net, SLICES.images[0], samples=1, seed=s) for s in (0, 0, 1))
    assert one.figures == same.figures
    assert one.figures != other.figures
