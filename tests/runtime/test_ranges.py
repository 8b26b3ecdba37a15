"""Ranges of numbers, in dataclasses and in options of commands."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from pyro_stitchnet.runtime.ranges import (
    Count,
    Decay,
    Few,
    Positive,
    Seed,
    Share,
    Side,
    Weight,
    check_ranges,
    checked,
)


@dataclass
class Numbers:
    count: Count = 1
    side: Side | None = None
    share: Share = 0.5
    decay: Decay = 0.5
    weight: Weight = 1.0
    positive: Positive = 1.0
    few: tuple[Few, ...] = (1, 2)
    other: int = -5


@pytest.mark.parametrize(
    "right",
    [
        {"count": 10**8, "side": 2048, "share": 1, "decay": 0, "weight": 0, "positive": 1e-300},
        {"count": np.int64(3), "share": np.float32(0.5), "side": None, "few": ()},
        {"other": 10**30},
    ],
)
def test_numbers_within_their_range(right: dict) -> None:
    check_ranges(Numbers(**right))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": 10**9}, "count must be at most 100,000,000, got 1000000000"),
        ({"count": True}, "count must be a number, got True"),
        ({"count": 2.5}, "count: Input should be a valid integer"),
        ({"side": 3_200_000}, "side must be at most 2,048"),
        ({"share": math.nan}, "share must be .*, got nan"),
        ({"decay": 1}, "decay must be below 1, got 1"),
        ({"weight": math.inf}, "weight must be at most 1,000,000, got inf"),
        ({"weight": 1e308}, r"weight must be at most 1,000,000, got 1e\+308"),
        ({"weight": math.nan}, "weight must be .*, got nan"),
        ({"positive": 0}, "positive must be above 0, got 0"),
        ({"few": (1, 0)}, "few must be at least 1, got 0"),
    ],
)
def test_numbers_out_of_their_range(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        check_ranges(Numbers(**wrong))


def test_the_options_of_a_command_are_checked_before_it_runs() -> None:
    calls = []

    @checked
    def command(out: str, first_seed: Seed = 0) -> None:
        calls.append((out, first_seed))

    command("a", first_seed=3)
    with pytest.raises(ValueError, match="--first-seed must be at least 0, got -1"):
        command("b", -1)
    assert calls == [("a", 3)]
