"""A prepared dataset on disk: compressed slices in shards, and a manifest that says what each is.

::

    DIR/dataset.json     format, preprocessing, sources; written last, so it marks a whole dataset
    DIR/manifest.csv     a row a slice, see MANIFEST
    DIR/skipped.csv      scans left out, and why
    DIR/shards/00000/    a Zarr group with the array slices, uint8 (n, 2, S, S): grey and label sets

Zarr, since a chunk is a slice that can be read alone, a shard is one file that one worker writes,
and other languages read it.
"""

import json
import secrets
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import zarr
from torch import Tensor
from zarr.codecs import ZstdCodec

from pyro_stitchnet.data.slices import Slices

__all__ = [
    "FORMAT",
    "MANIFEST",
    "ROWS",
    "SKIPPED",
    "Dataset",
    "finished_shards",
    "write_shard",
]

FORMAT = 1

# What the columns of a manifest mean.
MANIFEST = {
    "slice": "name, one of a kind",
    "patient": "whose slice it is; splits never part a patient",
    "study": "which of the patient's studies",
    "scan": "name of the scan",
    "index": "number of the slice in the scan, from the feet",
    "source": "kind of source",
    "file": "the scan's file or folder",
    "hounsfield": "whether the scan's grey values were HU",
    "slice_mm": "distance between slices, mm (1 where unknown)",
    "row_mm": "distance between rows, mm",
    "column_mm": "distance between columns, mm",
    "rows": "of the scan's slice",
    "columns": "of the scan's slice",
    "top": "upper edge of the picture on the scan's slice, in its pixels",
    "left": "left edge",
    "pixel": "side of a pixel of the picture, in pixels of the scan's slice",
    "lung": "share of the picture inside the lung field",
    "label_sets": "the sets of labels that occur, as 0 1 2+3",
    "labelled": "whether some pixel's labels are limited",
    "complete": "whether every pixel has one label",
    "has_ggo": "whether a pixel is labelled GGO",
    "has_consolidation": "whether a pixel is labelled consolidation",
    "hash": "tells copies of a picture, see pyro_stitchnet.data.leakage.perceptual_hash",
    "shard": "number of the shard",
    "row": "of the slice in its shard",
}
TEXT = ("slice", "patient", "study", "scan", "source", "file", "label_sets", "hash", "reason")

# A shard's own part of the two tables.
ROWS, SKIPPED = "manifest.csv", "skipped.csv"


class Dataset:
    """Slices of a prepared dataset, read from disk one by one.

    Attributes:
        folder: where it is.
        manifest: what each slice is, see :data:`MANIFEST`.
        about: the content of ``dataset.json``.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a dataset; no picture is read.

        Raises:
            FileNotFoundError: there is no finished dataset in the folder.
            ValueError: it is damaged, or of another format.
        """
        self.folder = Path(folder)
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
            self.manifest = _read_table(self.folder / ROWS)
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

    @property
    def names(self) -> Sequence[str]:
        """What each slice is called."""
        return list(self.manifest["slice"])

    @property
    def patients(self) -> Sequence[str]:
        """Whose slice each is."""
        return list(self.manifest["patient"])

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.manifest)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Grey values in [0, 1], float32 (S, S), and label sets, a bit a label, uint8 (S, S).

        Raises:
            ValueError: the slice's shard is damaged.
        """
        shard, row = (int(self.manifest[column].iat[i]) for column in ("shard", "row"))
        path = _shard_path(self.folder, shard)
        try:
            image, sets = torch.from_numpy(np.asarray(_open_shard(path)[row]))
        except (OSError, ValueError, KeyError, RuntimeError, IndexError) as error:
            raise ValueError(
                f"{path}: damaged ({error}); remove it and dataset.json, and prepare again"
            ) from error
        if not sets.all():  # Zarr reads a file that is gone as zeros, and 0 allows no label at all
            raise ValueError(
                f"{path}: damaged (slices are missing); remove it and dataset.json, and prepare "
                "again"
            )
        return image.float() / 255, sets

    def take(self, rows: Sequence[int] | np.ndarray) -> "Dataset":
        """The slices at ``rows``, still on disk."""
        part = object.__new__(Dataset)
        part.folder, part.about = self.folder, self.about
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


def write_shard(
    folder: Path,
    shard: int,
    slices: np.ndarray,
    rows: pd.DataFrame,
    skipped: pd.DataFrame,
) -> None:
    """Write a shard under a temporary name, then rename it; one that is there is kept.

    Args:
        folder: the dataset's.
        shard: its number.
        slices: grey values and label sets, uint8 (n, 2, S, S).
        rows: n rows of the manifest.
        skipped: scans left out, with the columns scan and reason.
    """
    path = _shard_path(folder, shard)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        n, *size = slices.shape
        zarr.create_group(temporary).create_array(
            "slices",
            shape=slices.shape,
            dtype=slices.dtype,
            chunks=(1, *size),
            shards=(max(n, 1), *size),
            compressors=ZstdCodec(level=5),
        )[:] = slices
        rows.to_csv(temporary / ROWS, index=False)
        skipped.to_csv(temporary / SKIPPED, index=False)
        if not path.exists():  # else another worker was given the same work and was faster
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def finished_shards(folder: Path, table: str = ROWS) -> dict[int, pd.DataFrame]:
    """A table of every shard that is whole, by the shard's number."""
    return {
        int(path.parent.name): _read_table(path)
        for path in sorted((folder / "shards").glob(f"[0-9]*/{table}"))
    }


def _shard_path(folder: Path, shard: int) -> Path:
    """Where a shard is."""
    return folder / "shards" / f"{shard:05d}"


@lru_cache(maxsize=64)
def _open_shard(path: Path) -> zarr.Array:
    slices = zarr.open_group(path, mode="r")["slices"]
    assert isinstance(slices, zarr.Array)
    return slices


def _read_table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False)
