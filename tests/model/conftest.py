"""New models of the presets, shared by tests that do not change them."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset


@pytest.fixture(scope="session")
def shared_net() -> Callable[[str], StitchNet]:
    """``(preset)``: its new StitchNet in evaluation mode, one for all tests; do not change it."""

    @cache
    def build(name: str) -> StitchNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return StitchNet(preset(name).model).eval()

    return build


@pytest.fixture(scope="session")
def one_hot() -> Callable[[Tensor], Tensor]:
    """``(labels (N, H, W))``: the sets of one label each, bool (N, H, W, K)."""
    return lambda labels: torch.nn.functional.one_hot(labels, len(LABELS)).bool()
