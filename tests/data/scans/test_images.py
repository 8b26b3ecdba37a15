"""Image files as scans and as masks."""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.data.scans.masks import read_mask
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.data.scans.volume import axial_affine

Write = Callable[..., Path]

SHAPE = (4, 5, 6)
HU = np.random.default_rng(0).integers(-1000, 500, SHAPE).astype(np.int16)
GREY = np.random.default_rng(2).integers(0, 256, (6, 7)).astype(np.uint8)


def refused(path: Path, *words: str, like: Stack | None = None) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: ")) as caught:
        read_volume(path) if like is None else read_mask(path, like=like)
    for word in words:
        assert word in str(caught.value)


def save(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_a_grey_image_is_one_axial_slice(tmp_path: Path, mode: str) -> None:
    Image.fromarray(GREY).convert(mode).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert np.array_equal(volume.axial(), GREY[None])
    assert volume.voxels.dtype == np.float32
    assert (volume.hounsfield, volume.source) == (False, tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_grey_saved_as_colour_jpeg_is_grey(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY).convert("RGB").save(tmp_path / f"a{suffix}", quality=95)
    read = read_volume(tmp_path / f"a{suffix}").voxels[0]
    assert np.abs(read - GREY).mean() < 4


def test_16_bit_images_have_the_scale_of_8_bit_ones(tmp_path: Path) -> None:
    values = np.array([[0, 257, 1000, 65535]], np.uint16)
    read = read_volume(save(tmp_path / "a.png", values)).voxels
    np.testing.assert_allclose(read, [values / 257], rtol=1e-6)
    assert (read.min(), read.max()) == (0, 255)


def test_coloured_images_are_refused(tmp_path: Path) -> None:
    grey = np.stack([GREY // 2] * 3, -1)
    noisy, marked = grey.copy(), grey.copy()
    noisy[2, 3, 0] += 3
    marked[2, 3, 0] += 4
    assert read_volume(save(tmp_path / "a.png", noisy)).voxels.shape == (1, 6, 7)
    refused(save(tmp_path / "a.png", marked), "not grey; save it as 8-bit or 16-bit grey")


def test_images_are_the_slices_of_one_scan(tmp_path: Path) -> None:
    stack = np.stack([GREY, GREY[::-1], GREY // 2])
    paths = [save(tmp_path / f"{c}.png", slice_) for c, slice_ in zip("cab", stack, strict=True)]
    volume = read_volume(paths)
    assert np.array_equal(volume.voxels, stack)
    assert np.array_equal(volume.axial(), stack)
    assert (volume.source, volume.hounsfield) == (tmp_path, False)
    assert np.array_equal(volume.affine, axial_affine())


def test_images_that_do_not_fit_together_are_refused(tmp_path: Path, write_volume: Write) -> None:
    one, other = save(tmp_path / "a.png", GREY), save(tmp_path / "b.png", GREY[1:])
    with pytest.raises(ValueError, match=r"b\.png: is \(5, 7\), but a\.png \(6, 7\)"):
        read_volume([one, other])
    scan = write_volume(tmp_path / "a.nii", HU, np.eye(4))
    with pytest.raises(ValueError, match=r"a\.nii: only images"):
        read_volume([one, scan])
    with pytest.raises(FileNotFoundError, match=r"c\.png: missing"):
        read_volume([one, tmp_path / "c.png"])
    with pytest.raises(ValueError, match="an empty list of images: give"):
        read_volume([])


def test_masks_are_values_or_palette_indices(tmp_path: Path) -> None:
    like = read_stack(save(tmp_path / "scan.png", GREY))
    mask = GREY % 4
    grey = save(tmp_path / "grey.png", mask)
    image = Image.fromarray(mask).convert("P")
    image.putdata(mask.flatten().tolist())
    image.putpalette([0, 0, 0, 90, 200, 90, 250, 200, 0, 250, 0, 0])
    image.save(tmp_path / "palette.png")
    for path in (grey, tmp_path / "palette.png"):
        assert np.array_equal(read_mask(path, like=like)[0], mask)
    both = [grey, tmp_path / "palette.png"]
    assert np.array_equal(read_mask(both, like=read_stack([grey] * 2)), [mask, mask])
    refused(save(tmp_path / "rgb.png", np.stack([mask] * 3, -1)), "not of mode RGB", like=like)
    refused(save(tmp_path / "16.png", mask.astype(np.uint16)), "not of mode I;16", like=like)


def test_a_palette_in_another_order_than_its_labels_is_refused(tmp_path: Path) -> None:
    """As of programs that turn grey values 1 and 2 into a palette to make the file smaller."""
    like = read_stack(save(tmp_path / "scan.png", GREY))
    reversed_, brighter = [180, 180, 180, 60, 60, 60], [60, 60, 60, 180, 180, 180]
    for palette, bad in (
        ([2, 2, 2, 1, 1, 1], True),
        ([0, 0, 0, 1, 1, 1], False),
        (reversed_, True),
        (brighter, False),
    ):
        image = Image.fromarray(GREY % 2).convert("P")
        image.putdata((GREY % 2).flatten().tolist())
        image.putpalette(palette)
        image.save(tmp_path / "a.png")
        if bad:
            refused(tmp_path / "a.png", "save it as 8-bit grey", like=like)
        else:
            assert np.array_equal(read_mask(tmp_path / "a.png", like=like)[0], GREY % 2)


# --- What a file declares -------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_and_masks_are_turned_as_they_declare(
    tmp_path: Path, ending: str, orientation: int
) -> None:
    """Each of the eight ways to store a picture, which a viewer undoes."""
    upright = np.kron(np.arange(6).reshape(2, 3) * 40, np.ones((16, 16), int)).astype(np.uint8)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: upright.T[::-1, ::-1], 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{ending}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=100)
    read = read_volume(path).voxels[0]
    assert read.shape == upright.shape
    assert np.abs(read - upright).max() < 3
    if ending == ".png":
        assert np.array_equal(read_volume(path, mask=True).voxels[0], upright)


def test_the_size_of_a_mask_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(GREY)).save(tmp_path / "a.jpg", exif=exif)
    scan = read_stack(tmp_path / "a.jpg")
    mask = save(tmp_path / "upright.png", GREY % 4)
    assert np.array_equal(read_mask(mask, like=scan)[0], GREY % 4)
    refused(save(tmp_path / "stored.png", np.rot90(GREY) % 4), "export the mask", like=scan)


def test_lossy_masks_are_refused_whatever_their_names(tmp_path: Path) -> None:
    like = read_stack(save(tmp_path / "scan.png", GREY))
    for name in ("a.jpg", "a.png"):
        Image.fromarray(GREY % 4).save(tmp_path / name, format="JPEG")
        refused(tmp_path / name, "lossy format JPEG", "export it as PNG", like=like)
    Image.fromarray(GREY % 4).save(tmp_path / "b.jpg", format="PNG")
    assert np.array_equal(read_mask(tmp_path / "b.jpg", like=like)[0], GREY % 4)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_are_refused_whatever_their_names(tmp_path: Path, kind: str) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png", format=kind)
    refused(tmp_path / "a.png", "its content is neither PNG nor JPEG")


def test_several_pictures_in_a_file_are_refused(tmp_path: Path) -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    refused(tmp_path / "a.png", "it holds several pictures")


@pytest.mark.parametrize("size", [(60000, 60000), (20000, 20000), (8193, 1)])
def test_what_is_claimed_is_checked_before_it_is_read(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    content = bytearray(save(tmp_path / "a.png", GREY).read_bytes())
    content[16:24] = struct.pack(">2I", *size)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "pixels")


def test_a_flipped_bit_of_a_png_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", GREY)
    content = path.read_bytes()
    kept = 0
    for place in range(0, 8 * len(content), 7):
        mutated = bytearray(content)
        mutated[place // 8] ^= 1 << place % 8
        path.write_bytes(mutated)
        try:
            assert np.array_equal(read_volume(path).voxels[0], GREY)
            kept += 1
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
    assert kept <= 8 * 12 / 7 + 1  # in the empty chunk at the end


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a{ending}", GREY)
    content = path.read_bytes()
    for length in range(0, len(content) - 12, 3):
        path.write_bytes(content[:length])
        refused(path, "unreadable")
