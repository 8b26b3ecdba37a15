"""A prepared dataset on disk: compressed slices in shards, and a manifest that says what each is.

::

    DIR/dataset.json     format, preprocessing, sources; written last, so it marks a whole dataset
    DIR/manifest.csv     a row a slice, see pyro_stitchnet.data.datasets.shards.MANIFEST
    DIR/skipped.csv      scans left out, and why
    DIR/shards/00000/    see pyro_stitchnet.data.datasets.shards
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.shards import MANIFEST, ROWS, SKIPPED, Shard, read_table
from pyro_stitchnet.data.datasets.slices import Slices

__all__ = ["FORMAT", "ROWS", "SKIPPED", "Dataset"]

FORMAT = 1
"""Of `dataset.json`; raised when older datasets can no longer be read."""


class Dataset:
    """Slices of a prepared dataset, read from disk one by one.

    Attributes:
        folder: where it is.
        manifest: what each slice is, see :data:`~pyro_stitchnet.data.datasets.shards.MANIFEST`.
        about: the content of ``dataset.json``.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a dataset; no picture is read.

        Raises:
            FileNotFoundError: there is no finished dataset in the folder.
            ValueError: it is damaged, or of another format.
        """
        self.folder = Path(folder)
        self._shards: dict[int, Shard] = {}  # those read from
        path = self.folder / "dataset.json"
        if not path.is_file():
            hint = (
                "its preparation was interrupted; run the same `stitchnet prepare` again"
                if (self.folder / "shards").is_dir()
                else "`stitchnet prepare SOURCE --out DIR` makes one"
            )
            raise FileNotFoundError(f"{self.folder}: no prepared dataset here; {hint}")
        try:
            self.about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            self.manifest = read_table(self.folder / ROWS)
            missing = set(MANIFEST) - set(self.manifest)
            if missing:
                raise ValueError(f"no column {', '.join(sorted(missing))} in {ROWS}")
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: damaged ({error}); prepare the dataset again") from error
        if self.about.get("format") != FORMAT:
            raise ValueError(
                f"{path}: format {self.about.get('format')}, but this version reads {FORMAT}; "
                "prepare the dataset again"
            )

    @property
    def size(self) -> int:
        """Rows and columns of a slice."""
        return int(self.about["preprocessing"]["size"])

    @cached_property
    def names(self) -> Sequence[str]:
        """What each slice is called."""
        return list(self.manifest["slice"])

    @cached_property
    def patients(self) -> Sequence[str]:
        """Whose slice each is."""
        return list(self.manifest["patient"])

    @cached_property
    def complete(self) -> Sequence[bool]:
        """Whether every pixel of each slice has one label."""
        return list(self.manifest["complete"])

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.manifest)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Grey values in [0, 1], float32 (S, S), and label sets, a bit a label, uint8 (S, S).

        Raises:
            ValueError: the slice's shard is damaged.
        """
        shard, row = (int(self.manifest[column].iat[i]) for column in ("shard", "row"))
        if shard not in self._shards:
            self._shards[shard] = Shard(self.folder, shard)
        image, sets = torch.from_numpy(self._shards[shard][row])
        return image / 255, sets

    def take(self, rows: Sequence[int] | np.ndarray) -> "Dataset":
        """The slices at ``rows``, still on disk."""
        part = object.__new__(Dataset)
        part.folder, part.about, part._shards = self.folder, self.about, self._shards
        part.manifest = self.manifest.iloc[np.asarray(rows, dtype=np.int64)]
        part.manifest = part.manifest.reset_index(drop=True)
        return part

    def load(self) -> Slices:
        """Read all slices into memory."""
        if not len(self):
            empty = torch.empty(0, self.size, self.size)
            return Slices(empty, empty.byte(), [], [])
        images, sets = zip(*(self[i] for i in range(len(self))), strict=True)
        return Slices(torch.stack(images), torch.stack(sets), self.names, self.patients)
