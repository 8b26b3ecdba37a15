"""A prepared dataset on disk: compressed slices in shards, and a manifest that describes them.

::

    DIR/dataset.json     format, preprocessing, sources, checksums of both tables; written last, so
                         it marks a whole dataset
    DIR/manifest.csv     a row for each slice, see pyro_stitchnet.data.datasets.shards.MANIFEST
    DIR/skipped.csv      scans left out, and the reason
    DIR/shards/00000/    see pyro_stitchnet.data.datasets.shards

torch is imported when slices are read: `prepare` makes datasets without it.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pyro_stitchnet.data.datasets.shards import (
    ROWS,
    SKIPPED,
    Shard,
    check_tables,
    read_table,
)
from pyro_stitchnet.runtime.checksums import REMEDY, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from pyro_stitchnet.data.datasets.slices import Slices

__all__ = ["FORMAT", "ROWS", "SKIPPED", "Dataset"]

FORMAT = 2
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
        self.about: dict[str, Any] = read_json(path)
        if self.about.get("format") != FORMAT:
            raise ValueError(
                f"{path}: format {self.about.get('format')}, but this version reads {FORMAT}; "
                "prepare the dataset again in another folder"
            )
        try:
            check_tables(self.folder, self.about)
            self.manifest = read_table(self.folder / ROWS)
        except (ValueError, OSError) as error:
            what = str(error).removesuffix(f"; {REMEDY}")
            raise ValueError(f"{what}; remove {path}, and prepare the dataset again") from error
        self._refuse_gaps()

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
        """Whether each slice's rule separates all labels, and every pixel is labelled."""
        return list(self.manifest["complete"])

    @property
    def skipped(self) -> pd.DataFrame:
        """The scans left out: columns ``scan`` and ``reason``."""
        return read_table(self.folder / SKIPPED)

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.manifest)

    def __getitem__(self, i: int) -> "tuple[Tensor, Tensor]":
        """Return grey values in [0, 1], float32 (S, S), and label sets as bits, uint8 (S, S).

        Raises:
            ValueError: the slice's shard is damaged.
        """
        import torch

        from pyro_stitchnet.data.datasets.slices import from_bytes

        number, row, crc32 = (int(self.manifest[k].iat[i]) for k in ("shard", "row", "crc32"))
        if number not in self._shards:
            self._shards[number] = Shard(self.folder, number, self.size)
        image, sets = torch.from_numpy(self._shards[number].read(row, crc32))
        return from_bytes(image), sets

    def take(self, rows: Sequence[int] | np.ndarray) -> "Dataset":
        """Return the slices at ``rows``, still on disk."""
        part = object.__new__(Dataset)
        part.folder, part.about, part._shards = self.folder, self.about, self._shards
        part.manifest = self.manifest.iloc[np.asarray(rows, dtype=np.int64)]
        part.manifest = part.manifest.reset_index(drop=True)
        return part

    def load(self) -> "Slices":
        """Read all slices into memory."""
        import torch

        from pyro_stitchnet.data.datasets.slices import Slices

        if not len(self):
            empty = torch.empty(0, self.size, self.size)
            return Slices(empty, empty.byte(), [], [])
        images, sets = zip(*(self[i] for i in range(len(self))), strict=True)
        return Slices(
            torch.stack(images), torch.stack(sets), self.names, self.patients, self.complete
        )

    def _refuse_gaps(self) -> None:
        """Refuse a dataset that has lost shards."""
        shards = self.folder / "shards"
        there = {path.name for path in shards.iterdir()} if shards.is_dir() else set()
        needed = {f"{number:05d}" for number in self.manifest["shard"].unique()}
        if lost := sorted(needed - there):
            raise ValueError(
                f"{shards / lost[0]}: missing, like {len(lost)} of {len(needed)} shards of the "
                f"dataset; remove {self.folder / 'dataset.json'}, and prepare the dataset again"
            )
