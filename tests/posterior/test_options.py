"""Options of a segmentation: their ranges."""

import math

import pytest

from pyro_stitchnet.posterior import ReadOutOptions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"read_out": "both"}, "read_out 'both' is unknown"),
        ({"samples": -1}, "samples must be at least 0"),
        ({"views": 0}, "views must be at least 1"),
        ({"views": 9}, "views must be at most 8"),
        ({"precision": "8"}, "precision '8' is unknown"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"decision": "boldest"}, "decision 'boldest' is unknown"),
        ({"least_patch": -1}, "least_patch"),
        ({"least_patch": math.nan}, "least_patch must be at least 0, got nan"),
        ({"batch_size": 10**9}, "batch_size must be at most 1,024"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReadOutOptions(**wrong)  # type: ignore[arg-type]
