"""Rows of benchmarks/results, and differences between their lines, for the tables of the docs."""

from pathlib import Path

import pandas as pd

from pyro_stitchnet.evaluation.benchmark.columns import by_run
from pyro_stitchnet.evaluation.benchmark.results import Results
from pyro_stitchnet.metrics.statistics import paired

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def rows_of(name: str) -> pd.DataFrame:
    return Results(RESULTS / name).rows


def gain(one: pd.DataFrame, other: pd.DataFrame) -> str:
    """Return the difference of two lines' lesion Dice, in the runs that both have."""
    change = paired(by_run(one), by_run(other))
    if not change["patients"]:
        return "–"
    return f"{signed(change['difference'])} ({signed(change['low'])} to {signed(change['high'])})"


def in_both(*lines: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each line in the runs that all have, by split."""
    lines = tuple(line.set_index(["folds", "fold", "seed"]) for line in lines)
    runs = sorted(set.intersection(*(set(line.index) for line in lines)))
    return [line.loc[runs] for line in lines]


def signed(number: float) -> str:
    return f"{number:+.3f}".replace("0.", ".", 1)
