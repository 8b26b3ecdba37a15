"""Folders of results: refuse to overwrite one, print the scores of one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_stitchnet.runtime.locks import check_free, only_run

__all__ = ["print_scores", "refuse_results", "writing"]


@contextmanager
def writing(out: Path, file: str) -> Iterator[None]:
    """Keep other runs from a folder for results, and refuse one that holds ``file`` already.

    Args:
        out: created if missing.
        file: the result that a command writes first.

    Raises:
        BlockingIOError: another run is writing there.
        FileExistsError: ``file`` exists in ``out``.
    """
    with only_run(out):
        _refuse(out, file)
        yield


def refuse_results(out: Path, file: str) -> None:
    """Refuse a folder that already holds ``file``, which the command would overwrite.

    Raises:
        BlockingIOError: another run is writing there.
        FileExistsError: ``file`` exists in ``out``.
    """
    check_free(out)
    _refuse(out, file)


def _refuse(out: Path, file: str) -> None:
    if (out / file).exists():
        raise FileExistsError(f"{out}: holds results already ({file}); choose another --out")


def print_scores(folder: Path) -> None:
    """Print the test scores in a folder: a table of Dice, or bits per dimension of an SVAE.

    Args:
        folder: contains the ``table.csv`` of an evaluation, the bits per dimension of an SVAE, or
            nothing, after a run without test patients.
    """
    import pandas as pd

    from pyro_stitchnet.evaluation.experiment import BITS
    from pyro_stitchnet.evaluation.tables import summary

    if (folder / BITS).exists():
        bits = pd.read_csv(folder / BITS)["bits"]
        print(f"bits per dimension of {len(bits)} test slices: {bits.mean():.4f}")
    elif (folder / "table.csv").exists():
        info = json.loads((folder / "table.json").read_text(encoding="utf-8"))["info"]
        print(f"scored: {info['coverage']['text']}")
        summary(pd.read_csv(folder / "table.csv", index_col="lesion")).print()
