"""Every byte of a file counts: what is damaged, or claims other than it holds, is refused."""

import bz2
import gzip
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pyro_stitchnet.data.scans.readers import files_of, read_volume
from pyro_stitchnet.data.scans.streaming import read_stack

Write = Callable[..., Path]

AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])
HU = np.random.default_rng(0).integers(-1000, 500, (8, 9, 7)).astype(np.int16)


def refused(path: Path, *words: str) -> None:
    """A scan is refused by name in one line, read whole and read slice by slice."""
    for spool in (None, path.with_name("spool")):
        with pytest.raises(ValueError, match="^" + re.escape(f"{path}: ")) as caught:
            read_stack(path, spool)
        for word in words:
            assert word in str(caught.value)
        assert "\n" not in str(caught.value)


def packed(folder: Path, ending: str) -> tuple[Path, Path]:
    """Write HU compressed; return the scan's file, and the file that holds the voxels."""
    path = folder / f"a{ending}"
    image = sitk.GetImageFromArray(HU.T)
    if ending == ".nii.gz":
        nib.save(nib.Nifti1Image(HU, AFFINE), path)
    elif ending == ".bz2.nrrd":
        sitk.WriteImage(image, path, useCompression=False)
        head, _, body = path.read_bytes().partition(b"\n\n")
        head = head.replace(b"encoding: raw", b"encoding: bzip2")
        path.write_bytes(head + b"\n\n" + bz2.compress(body))
    else:
        sitk.WriteImage(image, path, useCompression=True)
    holder = {".mhd": "a.zraw", ".nhdr": "a.raw.gz"}.get(ending, path.name)
    return path, folder / holder


PACKED = [".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".bz2.nrrd"]


@pytest.mark.parametrize("ending", PACKED)
def test_the_files_of_a_volume_include_its_detached_voxels(tmp_path: Path, ending: str) -> None:
    path, holder = packed(tmp_path, ending)
    assert set(files_of(path)) == {path, holder}
    path.write_bytes(b"damaged")
    assert files_of(path) == (path,)


@pytest.mark.parametrize("ending", PACKED)
def test_a_flipped_bit_of_packed_voxels_never_changes_them_in_silence(
    tmp_path: Path, ending: str
) -> None:
    path, holder = packed(tmp_path, ending)
    content = holder.read_bytes()
    start = len(content) - len(content) // 3  # within the voxels, up to the checksum
    draw = np.random.default_rng(0)
    refusals = []
    for bit in draw.integers(start * 8, len(content) * 8, 40).tolist():
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        holder.write_bytes(flipped)
        try:
            assert np.array_equal(read_volume(path).voxels, HU)
        except ValueError as error:
            refusals.append(str(error).startswith(f"{path}: "))
    assert len(refusals) > 30
    assert all(refusals)


@pytest.mark.parametrize("ending", PACKED)
def test_data_behind_or_missing_from_packed_voxels_are_refused(tmp_path: Path, ending: str) -> None:
    path, holder = packed(tmp_path, ending)
    content = holder.read_bytes()
    for damaged in (content + b"more", content[:-1], content[:-9]):
        holder.write_bytes(damaged)
        refused(path)
    holder.write_bytes(content)
    assert np.array_equal(read_volume(path).voxels, HU)


def test_a_gzip_file_may_have_several_members_and_any_name(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(HU, AFFINE), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]) + bytes(8))
    assert np.array_equal(read_volume(path).voxels, HU)
    (tmp_path / "c.nii").write_bytes(path.read_bytes())
    assert np.array_equal(read_volume(tmp_path / "c.nii").voxels, HU)
    path.write_bytes(content)
    assert np.array_equal(read_volume(path).voxels, HU)
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]) + b"more")
    refused(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd", ".npy"])
def test_more_or_fewer_voxels_than_the_header_claims_are_refused(
    tmp_path: Path, ending: str, write_volume: Write
) -> None:
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        np.save(path, HU)
    else:
        write_volume(path, HU, AFFINE)
    content = path.read_bytes()
    if ending == ".nii.gz":
        content = gzip.decompress(content)
    for changed in (content + b"\0", content + bytes(2 * 72), content[:-1], content[: -2 * 72]):
        path.write_bytes(gzip.compress(changed) if ending == ".nii.gz" else changed)
        refused(path)


def claiming(path: Path, shape: tuple[int, int, int]) -> Path:
    """Write a small file that claims to be large."""
    text = " ".join(map(str, shape))
    tail = bytes(8192)
    if ".nii" in path.name:
        header = nib.Nifti1Header()
        header.set_data_shape(shape)
        header.set_data_dtype(np.int16)
        header.set_sform(AFFINE, 1)
        header["vox_offset"] = 352
        data = header.binaryblock + bytes(4) + tail
    elif path.suffix == ".npy":
        head = str({"descr": "<i2", "fortran_order": False, "shape": shape}).encode() + b"\n"
        data = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + tail
    elif path.suffix == ".mha":
        data = (
            f"ObjectType = Image\nNDims = 3\nDimSize = {text}\nCompressedData = True\n"
            "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        ).encode() + zlib.compress(tail)
    else:
        encoding = "bzip2" if "bz2" in path.name else "raw"
        data = (
            f"NRRD0004\ntype: int16\ndimension: 3\nsizes: {text}\nendian: little\n"
            f"encoding: {encoding}\n\n"
        ).encode() + (bz2.compress(tail) if encoding == "bzip2" else tail)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


FORMATS = [".nii", ".nii.gz", ".npy", ".mha", ".nrrd", ".bz2.nrrd"]


@pytest.mark.parametrize("ending", FORMATS)
def test_claims_are_checked_before_memory_is_taken(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(claiming(tmp_path / f"a{ending}", (9000, 5000, 10)), "at most 8192 along an axis")
    refused(claiming(tmp_path / f"a{ending}", (4096, 4096, 1000)), "2,147,483,648 in all")
    refused(claiming(tmp_path / f"a{ending}", (2000, 2000, 0)), "longer than 0")
    if ending not in (".nii", ".nii.gz"):  # NIfTI's sizes are 16 bits long
        refused(claiming(tmp_path / f"a{ending}", (10**12, 10**12, 10**12)), "at most 8192")
    if ending != ".bz2.nrrd":  # bzip2 packs a million bytes into one
        monkeypatch.setattr(np, "empty", None)
    refused(claiming(tmp_path / f"a{ending}", (2000, 2000, 100)), "unreadable")


@pytest.mark.parametrize("spacing", [0.001, 200.0, 1e30])
@pytest.mark.parametrize("ending", [".nii", ".mha", ".nrrd"])
def test_spacings_that_no_scan_has_are_refused(
    tmp_path: Path, ending: str, spacing: float, write_volume: Write
) -> None:
    path = write_volume(tmp_path / f"a{ending}", HU, np.diag([-1.0, -1.0, spacing, 1.0]))
    refused(path, "correct its spacing")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd", ".npy"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"a{ending}")  # reading it would wait for ever
    refused(tmp_path / f"a{ending}", "neither a file nor a folder")


@pytest.mark.parametrize("ending", [".hdr", ".img"])
def test_pairs_of_files_are_refused_with_a_remedy(tmp_path: Path, ending: str) -> None:
    nib.save(nib.Nifti1Pair(HU, AFFINE), tmp_path / "a.img")
    refused(tmp_path / f"a{ending}", "convert them to .nii.gz")
