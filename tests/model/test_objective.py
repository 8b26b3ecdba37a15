"""The weight of the KL: its range, and its warm-up."""

from typing import Any

import pytest

from pyro_stitchnet.model.objective import Objective


def test_the_kl_weight_rises_linearly_to_its_value() -> None:
    objective = Objective(kl_warmup=4, kl_weight=2.0)
    weights = [objective.at_step(step).kl_weight for step in range(1, 6)]
    assert weights == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert Objective().at_step(1) == Objective()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kl_weight": 0}, "kl_weight must be above 0"),
        ({"kl_warmup": -1}, "at least 0"),
        ({"free_bits": -0.1}, "at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(**wrong)
