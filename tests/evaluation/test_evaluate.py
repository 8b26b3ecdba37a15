"""`evaluate` scores and draws the segmentations of a model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.evaluation import evaluate as module
from pyro_stitchnet.evaluation.coverage import Coverage
from pyro_stitchnet.evaluation.evaluate import WRITTEN, evaluate
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import Answer, ReadOutOptions
from pyro_stitchnet.presets import preset


@pytest.fixture(scope="module")
def net() -> StitchNet:
    torch.manual_seed(0)
    return StitchNet(preset("tiny").model)


@pytest.mark.parametrize(("least", "consolidation"), [(0, 10), (9, 9), (10, 0)])
def test_patches_below_the_least_are_scored_as_ground_glass(
    net: StitchNet,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    least: int,
    consolidation: int,
) -> None:
    slices = phantom_slices(1, 1, size=64)
    p = torch.tensor([0, 0, 0.6, 0.4])[:, None, None].repeat(1, 1, 64, 64)
    for patch in (p[0, 2:, 3:6, 3:6], p[0, 2:, 30:31, 30:31]):
        patch[:] = patch.flip(0).clone()
    result = Answer(p, p, p)
    monkeypatch.setattr(module, "segment", lambda *_, **__: result)
    options = ReadOutOptions(least_patch=least)
    scores = evaluate(net, slices, tmp_path, options).set_index("lesion")
    assert scores.loc["CON", "predicted_pixels"] == consolidation
    assert scores.loc["GGO", "predicted_pixels"] == 64 * 64 - consolidation
    assert scores.loc["Infection", "predicted_pixels"] == 64 * 64


def test_files_options_and_seed(net: StitchNet, tmp_path: Path) -> None:
    slices = phantom_slices(2, 1, size=64)
    options = ReadOutOptions(read_out="posterior", samples=2, views=2, seed=3)
    scores = evaluate(net, slices, tmp_path / "a", options, {"model": "m.pt"})
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(WRITTEN)
    info = json.loads((tmp_path / "a" / "table.json").read_text())["info"]
    assert {**info, **vars(options), "model": "m.pt"} == info
    assert len(info["style_gap"]) == 6
    torch.rand(1)  # the global generator has no effect
    again = evaluate(net, slices, tmp_path / "b", options)
    pd.testing.assert_frame_equal(scores, again)


def test_of_label_sets_infection_alone_is_scored(net: StitchNet, tmp_path: Path) -> None:
    slices = phantom_slices(1, 1, size=64)
    sets = np.array([1, 2, 12, 12], np.uint8)[slices.labels()]
    partial = Slices(slices.images, torch.from_numpy(sets), slices.names, slices.patients)
    scores = evaluate(net, partial, tmp_path)
    assert list(scores["lesion"]) == ["Infection"]
    assert scores["truth_pixels"].item() == int((slices.labels() >= 2).sum()) > 0


def test_what_is_scored_follows_from_the_rule_and_the_table_says_of_how_many(
    net: StitchNet, tmp_path: Path
) -> None:
    """Masks of infection that happen to hold none."""
    slices = phantom_slices(2, 1, size=64)
    sets = torch.where(slices.label_sets > 1, 2, 1).byte()
    none = Slices(slices.images, sets, slices.names, slices.patients, [False, False])
    scores = evaluate(net, none, tmp_path, coverage=Coverage(2, 8, {"without labels": 6}))
    assert scores["lesion"].tolist() == ["Infection"] * 2
    said = "2 of 8 slices; left out: 6 without labels"
    assert (tmp_path / "table.md").read_text().startswith(f"Scored: {said}.\n")
    info = json.loads((tmp_path / "table.json").read_text())["info"]
    assert info["coverage"] == {
        "scored": 2, "of": 8, "left_out": {"without labels": 6}, "text": said,
    }  # fmt: skip
