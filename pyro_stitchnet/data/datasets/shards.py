"""Shards: the slices of one or several scans in a file, each of which can be read alone.

::

    SHARD/manifest.csv    a row for each slice, see MANIFEST
    SHARD/skipped.csv     scans left out, and the reason
    SHARD/shard.json      the plan that the shard belongs to, the state of its scans' files, and
                          checksums of both tables
    SHARD/slices/         a Zarr array, uint8 (n, 2, S, S): grey values and label sets

A shard is a Zarr array, which other languages can read. This module reads slices without Zarr:
Zarr reads a shard's index again for every slice, which takes ten times as long.

Format: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/v1.0.html
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numcodecs.checksum32 import CRC32C
from numcodecs.zstd import Zstd
from zarr.codecs import ZstdCodec

from pyro_stitchnet.runtime.checksums import read_json, sha256, verify, write_json
from pyro_stitchnet.runtime.files import temporary_path, write_atomically
from pyro_stitchnet.runtime.text import csv_text

__all__ = [
    "MANIFEST",
    "ROWS",
    "SKIPPED",
    "TEXT",
    "Shard",
    "check_tables",
    "checksums",
    "finished_shards",
    "read_table",
    "remove_outdated",
    "write_shard",
    "write_table",
]

MANIFEST = {
    "slice": "unique name",
    "patient": "whose slice it is; splits keep a patient together",
    "study": "which of the patient's studies",
    "scan": "name of the scan",
    "index": "number of the slice in the scan, from the feet",
    "source": "kind of source",
    "file": "the scan's file or folder",
    "hounsfield": "whether the scan's grey values were HU",
    "warnings": "doubts about the scan's file, such as its orientation",
    "slice_mm": "distance between slices, mm (1 where unknown)",
    "row_mm": "distance between rows, mm",
    "column_mm": "distance between columns, mm",
    "rows": "of the scan's slice",
    "columns": "of the scan's slice",
    "top": "upper edge of the image on the scan's slice, in its pixels",
    "left": "left edge",
    "pixel": "side of a pixel of the image, in pixels of the scan's slice",
    "lung": "share of the image inside the lung field",
    "rule_sets": "the sets of labels that its labelling rule can give, such as 0 1 2+3",
    "label_sets": "the sets of labels that occur",
    "labelled": "whether a pixel's set leaves out a label",
    "complete": "whether its rule separates all labels, and every pixel is labelled",
    "tells_infection": "whether its rule separates infection from the rest, and every pixel is "
    "labelled",
    "has_ggo": "whether a pixel is labelled GGO",
    "has_consolidation": "whether a pixel is labelled consolidation",
    "hash": "nearly equal for copies of an image, see data.datasets.leakage.perceptual_hash",
    "shard": "number of the shard",
    "row": "of the slice in its shard",
    "crc32": "checksum of the slice's grey values and label sets",
}
"""The columns of `manifest.csv`: name and meaning."""

TEXT = (
    "slice", "patient", "study", "scan", "source", "file", "rule_sets", "label_sets", "hash",
    "reason", "warnings",
)  # fmt: skip
"""The columns of both tables that are text, even if they look like numbers."""

# The files of the two tables.
ROWS, SKIPPED = "manifest.csv", "skipped.csv"
ABOUT = "shard.json"

MISSING = 2**64 - 1  # the offset of a slice that was never written


class Shard:
    """The slices of a shard, read one by one.

    No file stays open in between, so a shard can be sent to other processes.
    """

    def __init__(self, folder: Path, number: int, size: int) -> None:
        """Read the index of the shard: where in the file each slice lies.

        Args:
            folder: the dataset's.
            number: of the shard.
            size: rows and columns of a slice.

        Raises:
            ValueError: the shard is damaged.
        """
        self._path = _path(folder, number)
        self._file = self._path.joinpath("slices", "c", "0", "0", "0", "0")
        with self._damage():
            about = json.loads((self._path / "slices" / "zarr.json").read_bytes())
            n, *self._shape = about["shape"]
            if self._shape != [2, size, size]:
                raise ValueError(f"slices of {self._shape}, not {[2, size, size]}")
            with self._file.open("rb") as file:
                file.seek(-16 * n - 4, os.SEEK_END)  # offset and length of each, and a checksum
                index = CRC32C(location="end").decode(file.read())
            self._index = np.frombuffer(index, "<u8").reshape(n, 2)

    def read(self, row: int, crc32: int) -> np.ndarray:
        """Read grey values and label sets of a slice, uint8 (2, S, S).

        Args:
            row: of the slice in the shard.
            crc32: its checksum, from the manifest.

        Raises:
            ValueError: the shard is damaged, or holds another slice there.
        """
        values = np.empty(self._shape, np.uint8)
        with self._damage():
            start, length = self._index[row].tolist()
            if start == MISSING:
                raise ValueError("a slice is missing")
            with self._file.open("rb") as file:
                file.seek(start)
                Zstd().decode(file.read(length), out=values)
            if zlib.crc32(values.data) != crc32:
                raise ValueError("a slice differs from the manifest")
        return values

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{self._path}: damaged ({error}); remove it and dataset.json, and prepare again"
            ) from error


def write_shard(
    folder: Path,
    number: int,
    slices: np.ndarray,
    rows: pd.DataFrame,
    skipped: pd.DataFrame,
    plan: str = "",
    files: str = "",
) -> None:
    """Write a shard under a temporary name, then rename it; an existing shard is kept.

    Args:
        folder: the dataset's.
        number: of the shard.
        slices: grey values and label sets, uint8 (n, 2, S, S); no label set is empty.
        rows: n rows of the manifest, without the checksums of the slices.
        skipped: scans left out, with the columns scan and reason.
        plan: digest of the plan of the dataset.
        files: digest of the state of the scans' files before they were read.
    """
    path = _path(folder, number)
    temporary = temporary_path(path)
    try:
        n, *size = slices.shape
        zarr.create_group(temporary).create_array(
            "slices",
            shape=slices.shape,
            dtype=slices.dtype,
            chunks=(1, *size),
            shards=(max(n, 1), *size),
            compressors=ZstdCodec(level=1, checksum=True),
            config={"write_empty_chunks": True},  # no chunk is empty; looking takes time
        )[:] = slices
        crc32 = [zlib.crc32(np.ascontiguousarray(one).data) for one in slices]
        write_table(rows.assign(crc32=crc32), temporary / ROWS)
        write_table(skipped, temporary / SKIPPED)
        about = {"plan": plan, "files": files, "checksums": checksums(temporary)}
        write_json(temporary / ABOUT, about)
        if not path.exists():  # else another worker had the same work and was faster
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def finished_shards(folder: Path, plan: str = "") -> dict[int, tuple[pd.DataFrame, pd.DataFrame]]:
    """Read the rows and the skipped scans of every finished shard, by the shard's number.

    Args:
        folder: the dataset's.
        plan: digest of the plan of the dataset.

    Raises:
        ValueError: a shard is damaged, or belongs to another plan.
    """
    shards = {}
    for path in sorted((folder / "shards").glob("[0-9]*")):
        try:
            about = read_json(path / ABOUT)
            check_tables(path, about)
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: damaged ({error}); remove it, and prepare again") from error
        if about.get("plan") != plan:
            raise ValueError(
                f"{path}: belongs to another dataset, or to one of another version; choose another "
                "--out"
            )
        shards[int(path.name)] = read_table(path / ROWS), read_table(path / SKIPPED)
    return shards


def remove_outdated(folder: Path, number: int, files: str) -> bool:
    """Remove a finished shard if the files of its scans have changed; return whether they have.

    Args:
        folder: the dataset's.
        number: of the shard.
        files: digest of the state of the scans' files now.
    """
    path = _path(folder, number)
    if read_json(path / ABOUT).get("files") == files:
        return False
    temporary = temporary_path(path)
    path.rename(temporary)  # else a kill could leave a part of the shard
    shutil.rmtree(temporary)
    return True


def checksums(folder: Path) -> dict[str, str]:
    """Return the checksums of both tables in a folder."""
    return {name: sha256(folder / name) for name in (ROWS, SKIPPED)}


def check_tables(folder: Path, about: Mapping[str, Any]) -> None:
    """Compare both tables in a folder with their recorded checksums.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a table differs.
    """
    noted = about.get("checksums")
    for name in (ROWS, SKIPPED):
        verify(folder / name, noted.get(name) if isinstance(noted, dict) else None)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table atomically, such that :func:`read_table` reads the same."""
    write_atomically(path, csv_text(table))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of a shard or dataset; the columns of :data:`TEXT` stay text."""
    return pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False)


def _path(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:05d}"
