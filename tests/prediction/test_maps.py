"""Labels of a scan by the options for decisions and small patches."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from pyro_stitchnet.data.preprocessing.steps import Placement, Preprocessing
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume
from pyro_stitchnet.labels import CONSOLIDATION
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.posterior.decision import decide, without_specks
from pyro_stitchnet.posterior.options import Decision
from pyro_stitchnet.prediction.maps import slice_maps
from pyro_stitchnet.prediction.slice_segmenter import SliceResult, SliceSegmenter

STEPS = Preprocessing(size=64, lungs="none")


def test_the_decision_option_is_used(net: StitchNet, noise: Stack) -> None:
    by_decision: dict[str, np.ndarray] = {}
    for decision in get_args(Decision):
        segmenter = SliceSegmenter(net, STEPS, options=ReadOutOptions(decision=decision))
        labels = []
        for one in slice_maps(segmenter, noise, styles=False)[1]:
            assert one.result is not None
            p = torch.from_numpy(one.result.covered()[1].copy())[None]
            assert np.array_equal(one.maps["labels"], decide(p, decision)[0].numpy())
            labels.append(one.maps["labels"])
        by_decision[decision] = np.stack(labels)
    assert not np.array_equal(by_decision["likeliest"], by_decision["dice"])


@pytest.mark.parametrize("pixel", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("least", [4, 6, 9])
def test_patches_are_counted_on_the_model_input(
    net: StitchNet, monkeypatch: pytest.MonkeyPatch, pixel: float, least: int
) -> None:
    """Patches of 4 and 8 pixels with soft edges have other sizes on the scan's pixels."""
    p = torch.tensor([0, 0, 0.8, 0.2])[:, None, None].repeat(1, 64, 64)
    for row, columns in ((10, 2), (40, 4)):
        p[2:, row : row + 2, 10 : 10 + columns] = torch.tensor([0.45, 0.55])[:, None, None]
    side = int(64 * pixel)
    result = SliceResult(0, Placement(side, side, pixel=pixel), p.numpy(), None)
    monkeypatch.setattr(SliceSegmenter, "slices", lambda *_, **__: iter([result]))
    segmenter = SliceSegmenter(net, STEPS, options=ReadOutOptions(least_patch=least))
    stack = Stack.of(Volume(np.zeros((side, side, 2)), np.eye(4), True, Path("flat")))
    on_scan = next(iter(slice_maps(segmenter, stack, styles=False)[1])).maps["labels"]
    on_input = decide(without_specks(p[None], "likeliest", least))[0].numpy()
    for upper, size in ((True, 4), (False, 8)):
        for labels in (on_scan, on_input):
            half = labels[: len(labels) // 2] if upper else labels[len(labels) // 2 :]
            assert (half == CONSOLIDATION).any() == (least <= size)
