"""Image files as scans and as masks."""

import re
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
