"""Guarding what an earlier command wrote."""

from pathlib import Path

__all__ = ["refuse_results"]


def refuse_results(out: Path, last: str) -> None:
    """Refuse a folder whose results, of which ``last`` is one, would be written over."""
    if (out / last).exists():
        raise FileExistsError(f"{out}: holds results already ({last}); choose another --out")
