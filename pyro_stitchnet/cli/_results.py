"""Folders of results: refuse to overwrite one, print the scores of one."""

from pathlib import Path

__all__ = ["print_scores", "refuse_results"]


def refuse_results(out: Path, file: str) -> None:
    """Refuse a folder that already holds ``file``, which the command would overwrite.

    Raises:
        FileExistsError: ``file`` exists in ``out``.
    """
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
        summary(pd.read_csv(folder / "table.csv", index_col="lesion")).print()
