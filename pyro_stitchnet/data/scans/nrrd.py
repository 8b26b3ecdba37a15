"""NRRD files (``.nrrd``, ``.nhdr``): the header, checked before voxels are read.

The format is that of https://teem.sourceforge.net/nrrd/format.html. Voxels must be in one file, raw
or packed by gzip or bzip2.
"""

import math
import re
from pathlib import Path
from typing import Literal

import numpy as np

from pyro_stitchnet.data.scans.common import LPS_TO_RAS, file_beside, reading
from pyro_stitchnet.data.scans.stored import AGAIN, StoredVolume

__all__ = ["open_nrrd"]

LONGEST_HEADER = 2**20  # programs store long values of their own in it

TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int"), "i2"),
    **dict.fromkeys(("int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int"), "u2"),
    **dict.fromkeys(("uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long"), "i8"),
    **dict.fromkeys(("signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int"), "u8"),
    **dict.fromkeys(("uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
"""NumPy's name of each type of numbers."""

PACKINGS: dict[str, Literal["", "gzip", "bzip2"]] = {
    "raw": "",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}

TO_RAS = {
    **dict.fromkeys(("left-posterior-superior", "lps"), LPS_TO_RAS),
    **dict.fromkeys(("right-anterior-superior", "ras"), np.eye(4)),
    **dict.fromkeys(("left-anterior-superior", "las"), np.diag([-1.0, 1.0, 1.0, 1.0])),
}
"""From the axes of a space to those of nibabel."""

UNITS = {"": 1.0, "um": 0.001, "µm": 0.001, "micron": 0.001, "mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Millimetres in units of length; without a name they are millimetres."""

ALIASES = {
    "centerings": "centers",
    "datafile": "data file",
    "lineskip": "line skip",
    "byteskip": "byte skip",
    "sampleunits": "sample units",
    "axismins": "axis mins",
    "axismaxs": "axis maxs",
    "blocksize": "block size",
    "oldmin": "old min",
    "oldmax": "old max",
}

FIELDS = (
    *("dimension", "type", "sizes", "encoding", "endian", "data file", "line skip", "byte skip"),
    *("space", "space dimension", "space directions", "space origin", "space units", "spacings"),
    *("units", "kinds", "centers", "thicknesses", "axis mins", "axis maxs", "measurement frame"),
    *("content", "number", "sample units", "labels", "block size", "min", "max"),
    *("old min", "old max"),
)
"""The fields of the format; it forbids others."""


def open_nrrd(path: Path) -> StoredVolume:
    """Read the header of a ``.nrrd`` or ``.nhdr`` file.

    Raises:
        ValueError: the file is not a NRRD file, or its header contradicts the file, does not
            describe a scan, or names a file elsewhere; the message names the file.
    """
    with reading(path, AGAIN):
        fields, end = _fields(path)
        packing = _packing(fields, path)
        dtype = _dtype(fields)
        n = int(_numbers(fields, "dimension", 1)[0])
        if not 1 <= n <= 16:
            raise ValueError(f"its header claims {n} axes")
        sizes = [int(size) for size in _numbers(fields, "sizes", n)]
        columns, origin, to_ras = _columns(fields, n)
        if any(size != 1 for size, column in zip(sizes, columns, strict=True) if column is None):
            raise ValueError(f"{path}: has several channels; save one of them")
        axes = [(size, c) for size, c in zip(sizes, columns, strict=True) if c is not None]
        while len(axes) > 3 and axes[-1][0] == 1:
            axes.pop()
        file, start = path, end
        if "data file" in fields:
            file, start = _data_file(fields, path), 0
        stored = file.stat().st_size - start
        skipped = int(_numbers(fields, "byte skip", 1)[0]) if "byte skip" in fields else 0
        if skipped == -1 and not packing:  # any bytes before the voxels
            skipped = max(0, stored - math.prod(sizes) * dtype.itemsize)
        if skipped < 0:
            raise ValueError(f"its header gives a byte skip of {skipped}")
        return StoredVolume(
            source=path,
            file=file,
            start=start if packing else start + skipped,
            packing=packing,
            skipped=skipped if packing else 0,
            shape=(*(size for size, _ in axes), *[1] * (3 - len(axes))),
            dtype=dtype,
            affine=_affine([column for _, column in axes[:3]], origin, to_ras),
            spaced="space directions" in fields or "spacings" in fields,
            warnings=_warnings(fields),
        )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's fields, and where it ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        if not re.fullmatch(rb"NRRD000[1-6]\r?\n", file.readline(16)):
            raise ValueError("it does not begin like a NRRD file")
        while file.tell() < LONGEST_HEADER and (line := file.readline(LONGEST_HEADER)):
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if not text:
                return fields, file.tell()
            if text.startswith("#"):
                continue
            name, colon, value = text.partition(":")
            if value.startswith("="):  # a key and a value of the user's own
                continue
            name = ALIASES.get(name.strip().lower(), name.strip().lower())
            if not (colon and name in FIELDS and value.strip().isprintable()):
                raise ValueError(f"its header has a line that is not a NRRD field ({text[:40]!r})")
            if name in fields:
                raise ValueError(f"its header has two fields {name}")
            fields[name] = value.strip()
        if "data file" in fields:  # a header alone may end without an empty line
            return fields, file.tell()
    raise ValueError("it ends in its header")


def _packing(fields: dict[str, str], path: Path) -> Literal["", "gzip", "bzip2"]:
    encoding = fields.get("encoding", "").lower()
    if encoding not in PACKINGS:
        raise ValueError(
            f"{path}: its encoding is {encoding or 'missing'}; save it raw or packed by gzip"
        )
    if int(_numbers(fields, "line skip", 1)[0]) if "line skip" in fields else 0:
        raise ValueError(f"{path}: begins with other lines (line skip); save it without them")
    return PACKINGS[encoding]


def _dtype(fields: dict[str, str]) -> np.dtype:
    kind = " ".join(fields.get("type", "").lower().split())
    if kind not in TYPES:
        raise ValueError(f"its header names no type of numbers ({kind or 'none'})")
    dtype = np.dtype(TYPES[kind])
    endian = fields.get("endian", "little" if dtype.itemsize == 1 else "missing").lower()
    if endian not in ("little", "big"):
        raise ValueError(f"its header gives no order of bytes (endian: {endian})")
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _data_file(fields: dict[str, str], path: Path) -> Path:
    name = fields["data file"]
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise ValueError(f"{path}: has its voxels in several files; save it as one .nrrd")
    return file_beside(path, name)


def _columns(
    fields: dict[str, str], n: int
) -> tuple[list[np.ndarray | None], np.ndarray, np.ndarray]:
    """Return the step of each axis, the origin, both in mm, and the turn to RAS, (4, 4).

    The step is None for an axis that is not spatial.
    """
    space = fields.get("space", "").lower()
    if space and space not in TO_RAS:
        raise ValueError(
            f"its space is {space}, whose place in the patient is unknown; save it in LPS or RAS"
        )
    to_ras = TO_RAS.get(space, LPS_TO_RAS)
    dimension = 3 if space else n
    if "space dimension" in fields:
        dimension = int(_numbers(fields, "space dimension", 1)[0])
        if space:
            raise ValueError("its header has both a space and a space dimension")
    origin = np.zeros(dimension)
    if "space origin" in fields:
        mm = _units(fields, "space units", dimension)
        origin = _vector(fields["space origin"], dimension) * mm
    if "space directions" in fields:
        columns = _directions(fields, n, dimension)
    else:
        columns = _spacings(fields, n)
    return columns, origin, to_ras


def _directions(fields: dict[str, str], n: int, dimension: int) -> list[np.ndarray | None]:
    """Return the space directions in mm."""
    mm = _units(fields, "space units", dimension)
    tokens = re.findall(r"none|\([^()]*\)", fields["space directions"])
    if len(tokens) != n or re.sub(r"none|\([^()]*\)|\s", "", fields["space directions"]):
        raise ValueError(f"its header gives no {n} space directions")
    columns = [None if token == "none" else _vector(token, dimension) * mm for token in tokens]
    return [column if _in_space(fields, i, n) else None for i, column in enumerate(columns)]


def _spacings(fields: dict[str, str], n: int) -> list[np.ndarray | None]:
    """Return the steps of axes that run along those of space; 1 where no spacing is stated."""
    mm = _units(fields, "units", n)
    spacings = np.ones(n)
    if "spacings" in fields:
        spacings = np.array(_numbers(fields, "spacings", n, finite=False)) * mm
    columns: list[np.ndarray | None] = []
    of_space = iter(np.eye(n + 3))
    for i, spacing in enumerate(spacings):
        known = not np.isnan(spacing) and _in_space(fields, i, n)
        columns.append(spacing * next(of_space) if known else None)
    return columns


def _in_space(fields: dict[str, str], axis: int, n: int) -> bool:
    """Return whether an axis is spatial, not of channels or time, by its kind."""
    kinds = fields.get("kinds", "domain " * n).lower().split()
    if len(kinds) != n:
        raise ValueError(f"its header gives no {n} kinds of axes")
    return kinds[axis] in ("domain", "space", "none", "???")


def _affine(columns: list[np.ndarray | None], origin: np.ndarray, to_ras: np.ndarray) -> np.ndarray:
    """Return the affine of at most three axes, RAS+; a missing third one is at right angles."""
    affine = np.eye(4)
    for axis, column in enumerate(columns):
        assert column is not None
        affine[:3, axis] = 0
        affine[: min(3, len(column)), axis] = column[:3]
    affine[: min(3, len(origin)), 3] = origin[:3]
    if len(columns) == 2 and len(origin) == 3:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        length = np.linalg.norm(normal)
        if length > 0:
            affine[:3, 2] = normal / length
    turned: np.ndarray = to_ras @ affine
    return turned


def _warnings(fields: dict[str, str]) -> tuple[str, ...]:
    if "space" in fields:
        return ()
    return (
        "The NRRD header names no space: its axes are taken to run to the left, to the back and to "
        "the head, as in ITK; left and right are guesses.",
    )


def _units(fields: dict[str, str], name: str, n: int) -> np.ndarray:
    """Return the millimetres in the unit of each axis, (n,)."""
    if name not in fields:
        return np.ones(n)
    units = re.findall(r'"([^"]*)"', fields[name])
    unknown = sorted({unit for unit in units if unit.lower() not in UNITS})
    if len(units) != n or unknown:
        raise ValueError(f"its header gives no {n} units of length as {name} ({fields[name]})")
    return np.array([UNITS[unit.lower()] for unit in units])


def _vector(text: str, n: int) -> np.ndarray:
    """Parse a vector such as (1,0,0.5)."""
    try:
        inside = re.fullmatch(r"\(([^()]*)\)", text)
        vector = np.array([float(number) for number in inside[1].split(",")] if inside else [])
    except ValueError:
        vector = np.empty(0)
    if len(vector) != n or not np.isfinite(vector).all():
        raise ValueError(f"its header has {text!r} where a vector of {n} numbers must be")
    return vector


def _numbers(fields: dict[str, str], name: str, n: int, *, finite: bool = True) -> list[float]:
    """Return the n numbers of a field; whole ones but for spacings."""
    try:
        numbers = [float(text) for text in fields[name].split()]
    except (KeyError, ValueError):
        numbers = []
    if len(numbers) != n or (finite and not np.isfinite(numbers).all()):
        raise ValueError(f"its header gives no {n} numbers as {name}")
    if finite and any(not number.is_integer() for number in numbers):
        raise ValueError(f"its header gives no whole numbers as {name}")
    return numbers
