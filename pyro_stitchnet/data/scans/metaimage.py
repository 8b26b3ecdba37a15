"""MetaImage files (``.mha``, ``.mhd``): the header, checked before voxels are read.

ITK also reads these files. But it returns uninitialised memory where compressed voxels are damaged,
crashes on some headers, and opens any file that a header names.
"""

import difflib
import math
import re
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np

from pyro_stitchnet.data.scans.common import LPS_TO_RAS, file_beside, reading
from pyro_stitchnet.data.scans.stored import AGAIN, StoredVolume
from pyro_stitchnet.data.scans.volume import check_affine

__all__ = ["open_metaimage"]

LONGEST_HEADER = 2**16

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # four bytes on every machine
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
"""NumPy's name of each type of numbers."""

UNITS = {"?": 1.0, "um": 0.001, "mm": 1.0, "cm": 10.0}
"""Millimetres in the values of DistanceUnits."""

OPPOSITE = str.maketrans("RLAPIS", "LRPASI")

ALIASES = {
    "Position": "Offset",
    "Origin": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}

FIELDS = (
    *("ObjectType", "NDims", "BinaryData", "BinaryDataByteOrderMSB", "CompressedData"),
    *("CompressedDataSize", "TransformMatrix", "Offset", "CenterOfRotation", "HeaderSize"),
    *("AnatomicalOrientation", "DistanceUnits", "ElementSpacing", "ElementSize", "DimSize"),
    *("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"),
    *("ElementNumberOfChannels", "ElementType", "ElementDataFile"),
)
"""The fields that are read; there may be others."""


def open_metaimage(path: Path) -> StoredVolume:
    """Read the header of a ``.mha`` or ``.mhd`` file.

    Raises:
        ValueError: the file is not a MetaImage file, or its header contradicts the file, does not
            describe a scan, or names a file elsewhere; the message names the file.
    """
    with reading(path, AGAIN):
        fields, end = _fields(path)
        n = _number(fields, "NDims")
        if not 1 <= n <= 8:
            raise ValueError(f"its header claims {n} axes")
        _check(fields, path)
        sizes = [int(size) for size in _numbers(fields, "DimSize", n)]
        while len(sizes) > 3 and sizes[-1] == 1:
            sizes.pop()
        order = ">" if _flag(fields, "BinaryDataByteOrderMSB") else "<"
        dtype = np.dtype(order + TYPES[fields["ElementType"]])
        file, start = path, end
        if fields["ElementDataFile"].upper() != "LOCAL":
            file, start = file_beside(path, fields["ElementDataFile"]), 0
        packing: Literal["", "zlib"] = "zlib" if _flag(fields, "CompressedData") else ""
        skipped = _number(fields, "HeaderSize", 0)
        stored = file.stat().st_size - start
        if packing and _number(fields, "CompressedDataSize", stored) != stored:
            raise ValueError(
                f"its header claims {fields['CompressedDataSize']} bytes of packed voxels, but "
                f"{file.name} holds {stored}"
            )
        if skipped == -1:  # any bytes before the voxels
            skipped = max(0, stored - math.prod(sizes) * dtype.itemsize)
        if packing and skipped:
            raise ValueError("its header has a HeaderSize before packed voxels")
        affine = LPS_TO_RAS @ _affine(fields, n)
        check_affine(affine, path)
        return StoredVolume(
            source=path,
            file=file,
            start=start + skipped,
            packing=packing,
            skipped=0,
            shape=(*sizes, *[1] * (3 - len(sizes))),
            dtype=dtype,
            affine=affine,
            spaced=not {"ElementSpacing", "ElementSize"}.isdisjoint(fields),
            warnings=_warnings(fields, affine),
        )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's fields, and where it ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while line := file.readline(LONGEST_HEADER):
            name, equals, value = line.decode("utf-8", "replace").partition("=")
            name, value = ALIASES.get(name.strip(), name.strip()), value.strip()
            if not name and not equals and not value:
                continue
            if not equals or file.tell() > LONGEST_HEADER:
                break
            if name in fields:
                raise ValueError(f"its header has two fields {name}")
            alike = difflib.get_close_matches(name, (*FIELDS, *ALIASES), 1, 0.8)
            if alike and alike[0] != name and abs(len(alike[0]) - len(name)) < 2:
                raise ValueError(f"its header has a field {name}, perhaps meant to be {alike[0]}")
            one = value.isprintable() and ("=" not in value or name == "ElementDataFile")
            if name in FIELDS and not one:
                raise ValueError(f"its header has more than one value in the line of {name}")
            fields[name] = value
            if name == "ElementDataFile":
                return fields, file.tell()
    raise ValueError("it does not begin with a MetaImage header")


def _check(fields: dict[str, str], path: Path) -> None:
    """Refuse anything but a volume of grey values in one binary file."""
    if fields.get("ObjectType", "Image") != "Image":
        raise ValueError(f"{path}: holds a {fields['ObjectType']}, not an image; give a scan")
    if _number(fields, "ElementNumberOfChannels", 1) != 1:
        raise ValueError(f"{path}: has several channels; save one of them")
    if fields.get("ElementType") not in TYPES:
        raise ValueError(f"its header names no type of numbers ({fields.get('ElementType')})")
    if not _flag(fields, "BinaryData", default=True):
        raise ValueError(f"{path}: holds its voxels as text; save it with binary data")
    name = fields["ElementDataFile"]
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise ValueError(f"{path}: has its voxels in several files; save it as one .mha")
    slope = _number(fields, "ElementToIntensityFunctionSlope", 1)
    offset = _number(fields, "ElementToIntensityFunctionOffset", 0)
    if (slope, offset) != (1, 0):
        raise ValueError(
            f"{path}: its header scales the stored values (slope {slope}, offset {offset}); save "
            "it with scaled values"
        )


def _affine(fields: dict[str, str], n: int) -> np.ndarray:
    """Return the affine in mm, LPS, (4, 4); spacings that are missing are 1."""
    if fields.get("DistanceUnits", "mm") not in UNITS:
        raise ValueError(f"its header has an unknown unit of length ({fields['DistanceUnits']})")
    mm = UNITS[fields.get("DistanceUnits", "mm")]
    spacing = np.ones(n)
    for name in ("ElementSpacing", "ElementSize"):
        if name in fields:
            spacing = np.array(_numbers(fields, name, n)) * mm
            break
    matrix = np.eye(n)  # a row for the direction of each axis
    if "TransformMatrix" in fields:
        matrix = np.array(_numbers(fields, "TransformMatrix", n * n)).reshape(n, n)
    if not np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=0.01):
        raise ValueError("the rows of its TransformMatrix are not unit vectors")
    offset = np.zeros(n)
    if "Offset" in fields:
        offset = np.array(_numbers(fields, "Offset", n)) * mm
    used = min(n, 3)
    affine = np.eye(4)
    affine[:used, :used] = (matrix.T * spacing)[:used, :used]
    affine[:used, 3] = offset[:used]
    return affine


def _warnings(fields: dict[str, str], affine: np.ndarray) -> tuple[str, ...]:
    """Return doubts about a header with this affine, RAS+."""
    stated = fields.get("AnatomicalOrientation", "???")
    # There are two conventions: axes are named after where they go to or where they come from.
    to = "".join(nib.orientations.aff2axcodes(affine))
    if not re.fullmatch("[RLAPIS]{3}", stated) or stated in (to, to.translate(OPPOSITE)):
        return ()
    return (
        "The AnatomicalOrientation and the TransformMatrix of the MetaImage header differ: the "
        "matrix is used; without one, the axes run to the left, to the back and to the head.",
    )


def _number(fields: dict[str, str], name: str, default: int | None = None) -> int:
    if default is not None and name not in fields:
        return default
    return int(_numbers(fields, name, 1)[0])


def _numbers(fields: dict[str, str], name: str, n: int) -> list[float]:
    """Return the n numbers of a field; whole ones of sizes."""
    try:
        numbers = [float(text) for text in fields[name].split()]
    except (KeyError, ValueError):
        numbers = []
    whole = name in ("NDims", "DimSize", "HeaderSize", "CompressedDataSize")
    if len(numbers) != n or not np.isfinite(numbers).all():
        raise ValueError(f"its header gives no {n} numbers as {name}")
    if whole and any(not number.is_integer() for number in numbers):
        raise ValueError(f"its header gives no whole numbers as {name}")
    return numbers


def _flag(fields: dict[str, str], name: str, *, default: bool = False) -> bool:
    """Return a field that says True or False."""
    text = fields.get(name, str(default)).capitalize()
    if text not in ("True", "False"):
        raise ValueError(f"its header gives neither True nor False as {name}")
    return text == "True"
