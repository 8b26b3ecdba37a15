"""The grey values of one DICOM slice, and checks of its pixel data against its header."""

import re
import struct
import warnings

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import RLELossless

from pyro_stitchnet.data.scans.common import AIR, reading
from pyro_stitchnet.data.scans.dicom_slices import DicomSlice

__all__ = ["read_grey"]

# The markers of JPEG and JPEG-LS that precede the size of the picture.
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)


def read_grey(one: DicomSlice) -> np.ndarray:
    """Read grey values, float32 (R, C): rescaled, with air in place of padding.

    Raises:
        ValueError: the file is unreadable, or its pixels contradict its header; the message names
            it.
    """
    with reading(one.file, "fetch the file again, or decompress it (as by gdcmconv --raw)"):
        # pixel_array(one.file) would accept a truncated lossless JPEG.
        whole = pydicom.dcmread(one.file)
        _check_size(whole, one.shape)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            stored = pixel_array(whole, raw=True).reshape(one.shape)
        for warning in warned:  # pydicom drops superfluous bytes, and warns
            if match := re.search(r"RLE .* (\d+) vs\. (\d+) bytes", str(warning.message)):
                _refuse_more(int(match[1]), one.shape)
    slope, intercept = one.rescale or (1.0, 0.0)
    grey = (stored * slope + intercept).astype(np.float32)
    if one.padding is not None:
        # Some files give the padding of signed pixels as an unsigned number: the cast wraps it.
        low, high = np.array(one.padding).astype(stored.dtype)
        grey[(stored >= low) & (stored <= high)] = AIR
    return grey


def _check_size(whole: pydicom.Dataset, shape: tuple[int, int]) -> None:
    """Refuse pixel data of another size than the header says.

    GDCM cuts larger images, and crashes on smaller ones.
    """
    syntax = whole.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        _refuse_more(8 * len(whole.PixelData) // whole.BitsAllocated, shape)
    elif syntax != RLELossless:
        size, bits, signed = _coded(get_frame(whole.PixelData, 0, number_of_frames=1))
        if size != shape:
            raise ValueError(f"its pixels are {size}, but its Rows and Columns {shape}")
        if next(width for width in (8, 16, 32, 64) if bits <= width) != whole.BitsAllocated:
            raise ValueError(f"its pixels have {bits} bits; its BitsAllocated contradict them")
        if signed and not whole.PixelRepresentation:
            raise ValueError("its pixels have a sign, but not by its PixelRepresentation")


def _refuse_more(pixels: int, shape: tuple[int, int]) -> None:
    """Refuse more pixels than the header says; a few bytes may pad the element."""
    if pixels >= (shape[0] + 1) * shape[1]:
        raise ValueError(f"it holds {pixels} pixels, more than its Rows and Columns {shape} say")


def _coded(frame: bytes) -> tuple[tuple[int, int], int, bool]:
    """Return the rows and columns of a picture in JPEG, JPEG-LS or JPEG 2000, its bits and sign.

    JPEG and JPEG-LS do not say whether values have a sign.
    """
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) > 42:  # JPEG 2000
        right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
        return (bottom - top, right - left), 1 + (frame[42] & 0x7F), frame[42] > 0x7F
    place = 2
    while frame[:2] == b"\xff\xd8" and place + 9 <= len(frame) and frame[place] == 0xFF:
        marker, length = frame[place + 1], int.from_bytes(frame[place + 2 : place + 4], "big")
        if marker in FRAMES:
            bits, rows, columns = struct.unpack_from(">B2H", frame, place + 4)
            return (rows, columns), bits, False
        place += 1 if marker == 0xFF else 2 + length  # bytes may fill the space before a marker
    raise ValueError("its compressed pixels have no readable header")
