"""Configurations of models: what is refused, and that every preset can be built."""

from typing import Any, get_args

import pytest

from pyro_stitchnet.model.config import Likelihood, ModelConfig, Wiring
from pyro_stitchnet.model.likelihoods import FAMILIES
from pyro_stitchnet.model.nn.encoder import MobileNetPyramid


@pytest.mark.parametrize("labels", [{"classifier": True}, {"anchored": True}, {"style_pool": 16}])
def test_a_model_without_labels_has_no_options_of_labels(labels: dict[str, Any]) -> None:
    ModelConfig(**labels)
    with pytest.raises(ValueError, match="need labels; set stitched"):
        ModelConfig(stitched=False, **labels)


def test_the_names_of_likelihoods_are_those_of_the_families() -> None:
    assert set(get_args(Likelihood)) == set(FAMILIES)


def test_the_names_of_wirings_are_known() -> None:
    for wiring in get_args(Wiring):
        MobileNetPyramid((8, 8, 8, 8, 8), wiring=wiring, width=0.35)
