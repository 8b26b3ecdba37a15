"""New models of the presets, shared by tests that do not change their weights."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset


@pytest.fixture(scope="session")
def cached_net() -> Callable[[str], StitchNet]:
    @cache
    def build(name: str) -> StitchNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return StitchNet(preset(name).model)

    return build


@pytest.fixture
def shared_net(cached_net: Callable[[str], StitchNet]) -> Callable[[str], StitchNet]:
    """``(preset)``: its new StitchNet in training mode, one for all tests; do not change it.

    Queries use evaluation mode and restore the mode.
    """
    return lambda name: cached_net(name).train()


@pytest.fixture
def tiny(shared_net: Callable[[str], StitchNet]) -> StitchNet:
    """The model of the preset "tiny", as for ``shared_net``."""
    return shared_net("tiny")


@pytest.fixture
def guided(shared_net: Callable[[str], StitchNet]) -> StitchNet:
    """The model of the preset "guided", as for ``shared_net``."""
    return shared_net("guided")
