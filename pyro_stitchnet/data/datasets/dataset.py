"""A prepared dataset on disk: compressed slices in shards, and a manifest that describes them.

::

    DIR/dataset.json     format, preprocessing, sources; written last, so it marks a whole dataset
    DIR/manifest.csv     a row for each slice, see pyro_stitchnet.data.datasets.shards.MANIFEST
    DIR/skipped.csv      scans left out, and the reason
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
from pyro_stitchnet.data.datasets.slices import Slices, from_bytes

__all__ = ["FORMAT", "ROWS", "SKIPPED", "Dataset"]

FORMAT = 1
"""Version of `dataset.json`; a new version means that older datasets cannot be read."""


class Dataset:
    """Slices of a prepared dataset, read from disk one by one.

    Attributes:
        folder: of the dataset.
        manifest: a row for each slice, see
            :data:`~pyro_stitchnet.data.datasets.shards.MANIFEST`.
        about: the content of ``dataset.json``.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a dataset; no image is read.

        Raises:
            FileNotFoundError: there is no finished dataset in the folder.
            ValueError: it is damaged, or of another format.
        """
        self.folder = Path(folder)
        self._shards: dict[int, Shard] = {}  # the opened ones
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
        """The name of each slice."""
        return list(self.manifest["slice"])

    @cached_property
    def patients(self) -> Sequence[str]:
        """The patient of each slice."""
        return list(self.manifest["patient"])

    @cached_property
    def complete(self) -> Sequence[bool]:
        """Whether every pixel of each slice has one label."""
        return list(self.manifest["complete"])

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.manifest)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return grey values in [0, 1], float32 (S, S), and label sets as bits, uint8 (S, S).

        Raises:
            ValueError: the slice's shard is damaged.
        """
        shard, row = (int(self.manifest[column].iat[i]) for column in ("shard", "row"))
        if shard not in self._shards:
            self._shards[shard] = Shard(self.folder, shard)
        image, sets = torch.from_numpy(self._shards[shard][row])
        return from_bytes(image), sets

    def take(self, rows: Sequence[int] | np.ndarray) -> "Dataset":
        """Return the slices at ``rows``, still on disk."""
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
