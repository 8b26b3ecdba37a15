"""Checks that no patient and no copy of an image lies in two parts of a split."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pyro_stitchnet.data.preprocessing.steps import to_bytes

__all__ = [
    "DISTANCE", "LeakageError", "check", "copied", "merge_duplicates", "perceptual_hash",
]  # fmt: skip

DISTANCE = 15
"""The largest distance between the hashes of two copies of one image, in bits of 256.

Measured on the 452 slices of the COVID-SemiSeg sources: a change of JPEG quality, size or contrast,
or some noise, changes at most 10 bits; slices of two patients differ in at least 42; a slice and
its patient's nearest other slice differ in 20 (median).
"""

HASH = 64  # hexadecimal digits of a hash
LISTED = 10  # cases in a message
BLOCK = 8  # rows compared with all others at a time: 30 MB for 444,034 slices


class LeakageError(ValueError):
    """Two parts of a split share a patient or an image."""


def perceptual_hash(image: np.ndarray) -> str:
    """Return a hash that is nearly equal for copies of an image, as 64 hexadecimal digits.

    Its bits are the signs of 256 low frequencies about their median. Copies may be saved again,
    scaled or changed in contrast, but not padded or cropped by more than a few pixels. An image of
    one grey value has the hash 0.

    Args:
        image: grey values in [0, 1], (H, W).

    Raises:
        ValueError: the image has another shape or other values.
    """
    least, greatest = (image.min(), image.max()) if image.size else (np.nan, np.nan)
    if image.ndim != 2 or not (least >= 0 and greatest <= 1):
        raise ValueError("an image must be grey values in [0, 1], (H, W)")
    if least == greatest:
        return "0" * HASH
    grey = Image.fromarray(to_bytes(image))
    return np.packbits(imagehash.phash(grey, hash_size=16).hash).tobytes().hex()


def check(manifest: pd.DataFrame, parts: pd.Series) -> None:
    """Refuse a split with a patient, or copies of one image, in two parts.

    Args:
        manifest: a row for each slice, with the columns ``slice``, ``patient`` and ``hash``, the
            :func:`perceptual_hash` of its image. Images of one grey value are not compared.
        parts: the part of each row.

    Raises:
        LeakageError: there are some; the message lists up to 10 of them.
    """
    parts_of = parts.groupby(manifest["patient"]).unique()
    _refuse(
        [f"patient {name}: {' and '.join(of)}" for name, of in parts_of.items() if len(of) > 1],
        "patients in two parts",
        "split by patient, with pyro_stitchnet.data.datasets.splits.assign",
    )
    names = manifest["slice"] + " of " + manifest["patient"] + " (" + parts + ")"
    _refuse(
        [f"{names.iat[i]} and {names.iat[j]}" for i, j in _copies(manifest["hash"], parts)],
        "copies of one image in two parts",
        "give their patients one name (pyro_stitchnet.data.datasets.leakage.merge_duplicates lists "
        "which), or leave one of each out",
    )


def merge_duplicates(manifest: pd.DataFrame) -> dict[str, str]:
    """Merge the patients who have copies of one image.

    Args:
        manifest: as for :func:`check`.

    Returns:
        Patient -> the alphabetically first patient of the group that copies connect; a patient
        without copies maps to itself.
    """
    patients, owner = np.unique(manifest["patient"].to_numpy(str), return_inverse=True)
    pairs = _copies(manifest["hash"], manifest["patient"])
    ends = np.array([(owner[i], owner[j]) for i, j in pairs], int).reshape(-1, 2)
    shape = (len(patients), len(patients))
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=shape)
    group = connected_components(graph, directed=False)[1]
    first = np.unique(group, return_index=True)[1]
    return dict(zip(patients.tolist(), patients[first[group]].tolist(), strict=True))


def copied(hashes: Iterable[str], others: str) -> np.ndarray:
    """Return which images are copies of one of some others, bool (N,).

    Args:
        hashes: the :func:`perceptual_hash` of N images.
        others: the hashes of the others, joined.
    """
    hashes = list(hashes)
    number = len(others) // HASH
    every = [*hashes, *(others[HASH * n : HASH * (n + 1)] for n in range(number))]
    result = np.zeros(len(hashes), bool)
    if hashes and number:
        groups = ["one"] * len(hashes) + ["other"] * number
        result[[i for i, _ in _copies(every, groups)]] = True
    return result


def _copies(hashes: Iterable[str], groups: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield pairs of different groups whose hashes differ in at most :data:`DISTANCE` bits.

    Every pair is compared, most of them by the last quarter of the hash only. Buckets of equal
    parts of the hash are no faster: lungs look alike, so the buckets grow large.
    """
    table = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint64).reshape(-1, 4)
    group = np.unique(np.array(list(groups), dtype=str), return_inverse=True)[1]
    index = np.flatnonzero(table.any(1))  # without images of one grey value
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


def _refuse(cases: Sequence[str], fault: str, remedy: str) -> None:
    """Raise LeakageError if there are cases of a fault."""
    if cases:
        more = f"\n  and {len(cases) - LISTED} more" if len(cases) > LISTED else ""
        listed = "".join(f"\n  {line}" for line in cases[:LISTED])
        raise LeakageError(f"{len(cases)} {fault}; {remedy}:{listed}{more}")
