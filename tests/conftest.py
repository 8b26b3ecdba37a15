"""Every test starts from the same random state and an empty Pyro."""

import pyro
import pytest


@pytest.fixture(autouse=True)
def fresh_start() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
