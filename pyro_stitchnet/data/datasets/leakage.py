"""Patients and pictures that lie on two sides of a split: none may."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["DISTANCE", "LeakageError", "check", "merge_duplicates", "perceptual_hash"]

DISTANCE = 15
"""Bits of 256 in which the hashes of two copies of one picture differ at most.

Measured on the 452 slices of the COVID-SemiSeg sources: another JPEG quality, size, contrast or
some noise changes at most 10 bits; slices of two patients differ in at least 42; a slice and the
nearest one of its patient in 20 (median).
"""

LISTED = 10
BLOCK = 8  # rows compared with all others at a time: for 444,034 slices 30 MB


class LeakageError(ValueError):
    """Two sides of a split share a patient or a picture."""


def perceptual_hash(image: np.ndarray) -> str:
    """The signs of 256 low frequencies about their median, as 64 hexadecimal digits.

    Copies of a picture have nearly the same: saved anew, scaled or of another contrast, but not
    padded or cropped by more than a few pixels. A picture of one grey value has zeros.

    Args:
        image: grey values in [0, 1], (H, W).

    Raises:
        ValueError: they are not.
    """
    if image.ndim != 2 or not image.size or not ((image >= 0) & (image <= 1)).all():
        raise ValueError("a picture must be grey values in [0, 1], (H, W)")
    if image.min() == image.max():
        return "0" * 64
    grey = Image.fromarray((image * 255).round().astype(np.uint8))
    return np.packbits(imagehash.phash(grey, hash_size=16).hash).tobytes().hex()


def check(manifest: pd.DataFrame, parts: pd.Series) -> None:
    """Refuse a split of which two parts share a patient, or hold copies of one picture.

    Args:
        manifest: a row a slice, with the columns ``slice``, ``patient`` and ``hash``, the
            :func:`perceptual_hash` of its picture. Pictures of one grey value are passed over.
        parts: the part of each row.

    Raises:
        LeakageError: some do; the message lists up to 10 of them.
    """
    sides = parts.groupby(manifest["patient"]).unique()
    _refuse(
        [f"patient {who}: {' and '.join(where)}" for who, where in sides.items() if len(where) > 1],
        "patients in two parts",
        "split by patient, with pyro_stitchnet.data.datasets.splits.assign",
    )
    who = manifest["slice"] + " of " + manifest["patient"] + " (" + parts + ")"
    _refuse(
        [f"{who.iat[i]} and {who.iat[j]}" for i, j in _copies(manifest["hash"], parts)],
        "copies of one picture in two parts",
        "give their patients one name (pyro_stitchnet.data.datasets.leakage.merge_duplicates tells which), "
        "or leave one of each out",
    )


def merge_duplicates(manifest: pd.DataFrame) -> dict[str, str]:
    """Patients who have copies of one picture are one: their common name, for every patient.

    Args:
        manifest: as for :func:`check`.

    Returns:
        Patient -> the alphabetically first patient with whom copies connect them; most often
        themselves.
    """
    patients, owner = np.unique(manifest["patient"].to_numpy(str), return_inverse=True)
    pairs = _copies(manifest["hash"], manifest["patient"])
    ends = np.array([(owner[i], owner[j]) for i, j in pairs], int).reshape(-1, 2)
    shape = (len(patients), len(patients))
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=shape)
    group = connected_components(graph, directed=False)[1]
    first = np.unique(group, return_index=True)[1]
    return dict(zip(patients.tolist(), patients[first[group]].tolist(), strict=True))


def _copies(hashes: Iterable[str], groups: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Pairs of different groups whose hashes differ in at most :data:`DISTANCE` bits.

    Every pair is compared, but most by the last quarter of the hash only: quick enough, and where
    lungs look alike as exact buckets of hashes grow too large to be quicker.
    """
    table = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(-1, 4)
    group = np.unique(np.array(list(groups), dtype=str), return_inverse=True)[1]
    index = np.flatnonzero(table.any(1))  # no pictures of one grey value
    index = index[np.argsort(group[index], kind="stable")]
    table, last = table[index], table[index, -1]
    starts = np.unique(group[index], return_index=True)[1].tolist()
    for start, stop in pairwise([*starts, len(index)]):
        for top in range(start, stop, BLOCK):
            rows = slice(top, min(top + BLOCK, stop))
            near = np.bitwise_count(last[rows, None] ^ last[stop:]) <= DISTANCE
            i, j = np.nonzero(near)
            i, j = i + top, j + stop
            close = np.bitwise_count(table[i] ^ table[j]).sum(1) <= DISTANCE
            yield from zip(index[i[close]].tolist(), index[j[close]].tolist(), strict=True)


def _refuse(found: Sequence[str], what: str, remedy: str) -> None:
    if found:
        more = f"\n  and {len(found) - LISTED} more" if len(found) > LISTED else ""
        listed = "".join(f"\n  {line}" for line in found[:LISTED])
        raise LeakageError(f"{len(found)} {what}; {remedy}:{listed}{more}")
