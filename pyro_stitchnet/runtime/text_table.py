"""Tables of text, for a Markdown file or the terminal."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["WIDTH", "TextTable", "count", "decimal"]

WIDTH = 100
"""Largest width of a table on the terminal, in columns."""


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        head: titles of the columns.
        rows: cells, as many in each row as there are titles.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table in Markdown, its numbers right-aligned, ending in a new line."""
        rule = ["---", *["---:"] * (len(self.head) - 1)]
        rows = [[_escaped(cell) for cell in row] for row in (self.head, rule, *self.rows)]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def print(self) -> None:
        """Print the table: on a terminal at most :data:`WIDTH` columns wide, else in Markdown."""
        if not sys.stdout.isatty():
            print(self.markdown())
            return
        # Close columns, so that a table of seven with scores fits into 80 columns.
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
        for number, title in enumerate(self.head):
            table.add_column(title, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        console = Console(markup=False, highlight=False)
        console.width = min(console.width, WIDTH)
        console.print(table)
        console.print()


def _escaped(cell: str) -> str:
    """A cell on one line, in which a bar does not end it."""
    return " ".join(cell.splitlines()).replace("|", r"\|")


def decimal(value: float) -> str:
    """Format a score as the article does: ".391"; a dash where undefined."""
    return "–" if pd.isna(value) else f"{value:.3f}".removeprefix("0")


def count(value: Any) -> str:
    """Format a whole number; a dash where undefined."""
    return "–" if pd.isna(value) else f"{int(value):,}"
