"""The results of a benchmark on disk."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_stitchnet.runtime.checksums import read_json, sha256, verify, write_json
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["CELL", "CHECKSUMS", "SCORES", "TABLE", "Results"]

CELL = ("name", "labels", "folds", "fold", "seed")
"""The columns that identify a trained model: entry, label budget (-1 for all), split."""

CHECKSUMS = "checksums.json"
"""The file with the checksum of the table."""

SCORES, TABLE = "scores.csv", "table.csv"

# Columns that may look like numbers: a commit such as 5090819 or 12e4567, Python 3.12, 32 bits.
TEXT = (
    *("name", "variant", "method", "data", "spec_digest", "data_digest", "commit", "python"),
    "precision",
)


class Results:
    """The results so far.

    ``table.csv`` has one row per trained model and variant: a predictor of the model with a
    decision. The report is made from these rows alone, so a run can go on from them on another
    machine. The columns ``spec_digest`` and ``data_digest`` are digests of the specification that
    made the row, and of the slices' names, patients, pixels and labels; early rows lack them.
    ``checksums.json`` is written before the table. It has the table's checksums before and after
    the change, so the table is valid even if the run is killed between.

    ``scores.csv`` has the scores of each slice, for analyses of one's own. No result depends on it.

    Attributes:
        folder: of the files.
        rows: the content of ``table.csv``.
    """

    def __init__(self, folder: Path) -> None:
        """Read the table, if there is one.

        Raises:
            FileNotFoundError: there are rows, but no checksums.
            ValueError: the table is damaged, or was edited; or ``scores.csv`` cannot be read.
        """
        self.folder = folder
        self.rows = self._scores = pd.DataFrame()
        self._digest = ""
        path = folder / TABLE
        if path.exists():
            verify(path, *read_json(folder / CHECKSUMS).get(TABLE, ()))
            self._digest = sha256(path)
            self.rows = _read(path, TEXT).fillna({"variant": ""})
        if (scores := folder / SCORES).exists():
            try:
                self._scores = _read(scores, [*TEXT, "patient"])
                _same_cell(self._scores, dict.fromkeys(CELL, 0))
            except (KeyError, ValueError) as error:
                raise ValueError(f"{scores}: damaged ({error}); remove it") from None

    def has(self, key: Mapping[str, Any]) -> bool:
        """Whether there are results of a model, given its values of :data:`CELL`."""
        return bool(len(self._of(key)))

    def digests(self, column: str, **where: Any) -> set[str]:
        """Return the values of a column of digests in the rows with these values."""
        if column not in self.rows:
            return set()
        chosen = (self.rows[list(where)] == pd.Series(where)).all(axis=1)
        return set(self.rows.loc[chosen, column].dropna())

    def add(self, rows: list[dict[str, Any]], scores: pd.DataFrame) -> None:
        """Append the rows and scores of a model and write the files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        earlier = self._scores
        if len(earlier):  # leave out those of a run that was interrupted here
            earlier = earlier[~_same_cell(earlier, rows[0])]
        self._scores = pd.concat([earlier, scores], ignore_index=True)
        if len(self._scores):
            write_atomically(self.folder / SCORES, self._scores.to_csv(index=False))
        self.rows = pd.concat([self.rows, pd.DataFrame(rows)], ignore_index=True)
        text = self.rows.to_csv(index=False)
        before, self._digest = self._digest, hashlib.sha256(text.encode()).hexdigest()
        write_json(self.folder / CHECKSUMS, {TABLE: [before, self._digest]})
        write_atomically(self.folder / TABLE, text)

    def of(self, key: Mapping[str, Any]) -> tuple[list[dict[str, Any]], pd.DataFrame]:
        """Return the rows of a model, and its scores where they are known."""
        scores = self._scores
        return self._of(key).to_dict("records"), (
            scores[_same_cell(scores, key)] if len(scores) else scores
        )

    def _of(self, key: Mapping[str, Any]) -> pd.DataFrame:
        return self.rows[_same_cell(self.rows, key)] if len(self.rows) else self.rows


def _same_cell(table: pd.DataFrame, key: Mapping[str, Any]) -> pd.Series:
    return (table[list(CELL)] == pd.Series(key)[list(CELL)]).all(axis=1)


def _read(path: Path, text: Sequence[str]) -> pd.DataFrame:
    # A patient may be called NA.
    return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
