"""What `evaluate` makes of a model's answer."""

from pathlib import Path

import pytest
import torch

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.evaluation import evaluate as report
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import Answer
from pyro_stitchnet.presets import preset


@pytest.mark.parametrize(("least", "found"), [(0, 10), (9, 9), (10, 0)])
def test_patches_below_the_least_are_scored_as_ground_glass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, least: int, found: int
) -> None:
    slices = phantom_slices(1, 1, size=64)
    p = torch.tensor([0, 0, 0.6, 0.4])[:, None, None].repeat(1, 1, 64, 64)
    for patch in (p[0, 2:, 3:6, 3:6], p[0, 2:, 30:31, 30:31]):
        patch[:] = patch.flip(0).clone()
    answer = Answer(p, p, p[:, 0])
    monkeypatch.setattr(report, "segment", lambda *_, **__: answer)
    net = StitchNet(preset("tiny").model)
    scores = report.evaluate(net, slices, tmp_path, least_patch=least).set_index("lesion")
    assert scores.loc["CON", "predicted_pixels"] == found
    assert scores.loc["GGO", "predicted_pixels"] == 64 * 64 - found
    assert scores.loc["Infection", "predicted_pixels"] == 64 * 64
