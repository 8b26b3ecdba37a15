"""The tables of a benchmark on disk."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_stitchnet.runtime.checksums import read_json, sha256, verify, write_json
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["CELL", "CHECKSUMS", "OTHER_HOSPITAL", "Results"]

CELL = ("name", "labels", "folds", "fold", "seed")
"""The columns that identify a trained model: entry, label budget (-1 for all), split."""

OTHER_HOSPITAL = "other_hospital"
"""Value of the column ``set`` of the scores on another hospital's slices; else it is "test"."""

CHECKSUMS = "checksums.json"
"""The file with the checksums of both tables."""

TABLES = ("scores.csv", "table.csv")  # in the order in which they are written

# Columns that may look like numbers: a commit such as 5090819 or 12e4567, Python 3.12.
TEXT = ("name", "variant", "method", "data", "patient", "spec_digest", "commit", "python")


class Results:
    """The results so far.

    ``table.csv`` has one row per trained model and variant: a predictor of the model with a
    decision. Its column ``spec_digest`` is the digest of the specification that made the row.
    ``scores.csv`` has the scores of each slice. Scores are written before their row; scores without
    a row, from an interrupted run, are ignored. ``checksums.json`` is written before both. It has
    the checksums of each file before and after the change, so the files are valid even if the run
    is killed between.

    Attributes:
        folder: of both files.
        rows: the content of ``table.csv``.
        scores: the content of ``scores.csv``.
    """

    def __init__(self, folder: Path) -> None:
        """Read the files, if there are any.

        Raises:
            FileNotFoundError: there are rows and no scores, or no checksums.
            ValueError: a table is damaged, or was edited.
        """
        self.folder = folder
        written = [name for name in TABLES if (folder / name).exists()]
        known = read_json(folder / CHECKSUMS) if written else {}
        for name in written:
            verify(folder / name, *known.get(name, ()))
        self._digests = {name: sha256(folder / name) for name in written}
        self.scores, self.rows = (self._read(name) for name in TABLES)
        if len(self.rows):
            if not len(self.scores):
                raise FileNotFoundError(
                    f"{folder}/scores.csv: missing beside table.csv; restore it, or choose another "
                    "--out"
                )
            done = self.rows[list(CELL)].drop_duplicates()
            self.scores = self.scores.merge(done, on=list(CELL))

    def has(self, key: Mapping[str, Any]) -> bool:
        """Whether there are results of a model, given its values of :data:`CELL`."""
        return bool(len(self._of(key)))

    def digests(self, key: Mapping[str, Any]) -> set[str]:
        """Return the digests of the specifications that made the results of a model."""
        rows = self._of(key)
        return set(rows["spec_digest"].dropna()) if "spec_digest" in rows else set()

    def add(self, rows: list[dict[str, Any]], scores: pd.DataFrame) -> None:
        """Append the rows and scores of a model and write both files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.scores = pd.concat([self.scores, scores], ignore_index=True)
        self.rows = pd.concat([self.rows, pd.DataFrame(rows)], ignore_index=True)
        texts = {
            name: table.to_csv(index=False)
            for name, table in zip(TABLES, (self.scores, self.rows), strict=True)
        }
        before = self._digests
        self._digests = {n: hashlib.sha256(text.encode()).hexdigest() for n, text in texts.items()}
        known = {name: [before.get(name, ""), self._digests[name]] for name in TABLES}
        write_json(self.folder / CHECKSUMS, known)
        for name, text in texts.items():
            write_atomically(self.folder / name, text)

    def _of(self, key: Mapping[str, Any]) -> pd.DataFrame:
        if not len(self.rows):
            return self.rows
        return self.rows[(self.rows[list(CELL)] == pd.Series(key)[list(CELL)]).all(axis=1)]

    def _read(self, name: str) -> pd.DataFrame:
        path = self.folder / name
        if not path.exists():
            return pd.DataFrame()
        text = dict.fromkeys(TEXT, str)
        # A patient may be called NA.
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        return table.fillna({"variant": ""})
