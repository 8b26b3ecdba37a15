"""Preprocessing, and the exact way back to the voxels of the scan."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import (
    Placement,
    PreparedSlice,
    Preprocessing,
    crop,
    open_and_close,
    pad_to_square,
    resize,
    to_bytes,
    window,
    zero_outside,
)
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume, axial_affine, to_axial
from pyro_stitchnet.labels import ALL_LABELS

careful = settings(derandomize=True, deadline=None, max_examples=60)


def new_slice(height: int, width: int, lung: np.ndarray | None = None) -> PreparedSlice:
    rng = np.random.default_rng(height * 1000 + width)
    return PreparedSlice(
        rng.random((height, width), np.float32),
        (1 << rng.integers(0, 4, (height, width))).astype(np.uint8),
        np.ones((height, width), bool) if lung is None else lung,
        Placement(height, width),
    )


@st.composite
def slices(draw: st.DrawFn) -> PreparedSlice:
    """Slices with at least one pixel of lung."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    lung = draw(arrays.arrays(bool, (height, width)))
    lung[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return new_slice(height, width, lung)


@careful
@given(slices(), st.integers(0, 5))
def test_crop_and_padding_come_back_exactly(before: PreparedSlice, margin: int) -> None:
    after = pad_to_square(crop(before, margin))
    assert after.image.shape[0] == after.image.shape[1]
    rows, columns = (np.flatnonzero(before.lung.any(axis)) for axis in (1, 0))
    box = np.s_[
        max(rows[0] - margin, 0) : rows[-1] + 1 + margin,
        max(columns[0] - margin, 0) : columns[-1] + 1 + margin,
    ]
    assert (after.placement.back(after.label_sets, outside=99)[box] == before.label_sets[box]).all()
    assert (after.placement.back(after.image, outside=9)[box] == before.image[box]).all()


@careful
@given(slices(), st.sampled_from([32, 64]))
def test_enlarged_labels_come_back_exactly(before: PreparedSlice, size: int) -> None:
    after = resize(pad_to_square(before), size)
    assert after.image.shape == (size, size)
    if size >= max(before.image.shape):
        assert (after.placement.back(after.label_sets) == before.label_sets).all()


@careful
@given(st.integers(33, 90), st.integers(33, 90), st.integers(0, 30))
def test_every_pixel_gets_the_value_at_its_centre(height: int, width: int, edge: int) -> None:
    lung = np.zeros((height, width), bool)
    lung[edge:, edge // 2 :] = True
    after = resize(pad_to_square(crop(new_slice(height, width, lung), 0)), 32)
    place, image = after.placement, np.arange(32 * 32).reshape(32, 32)
    back = place.back(image, outside=-1)
    for r in range(height):
        for c in range(width):
            row, column = (r + 0.5 - place.top) / place.pixel, (c + 0.5 - place.left) / place.pixel
            inside = 0 <= row < 32 and 0 <= column < 32
            assert back[r, c] == (image[int(row), int(column)] if inside else -1)


def test_probabilities_come_back_smoothly() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None].repeat(64, 0)
    before = replace(new_slice(64, 64), image=ramp)
    after = resize(before, 32)
    back = after.placement.back(after.image, order=1)
    assert np.abs(back - ramp)[:, 2:-2].max() < 0.01
    assert back.dtype == np.float32


def test_crop_stops_at_the_border_and_keeps_the_margin() -> None:
    lung = np.zeros((20, 30), bool)
    lung[5:8, 0:4] = True
    after = crop(new_slice(20, 30, lung), 3)
    assert after.image.shape == (9, 7)
    assert (after.placement.top, after.placement.left) == (2, 0)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_labels_and_lung_are_resized_as_by_pillow(size: int) -> None:
    """Also where all pixels are equal."""
    rng = np.random.default_rng(0)
    for sets in (np.full((50, 50), ALL_LABELS, np.uint8), rng.integers(1, 15, (50, 50), np.uint8)):
        lung = sets > 7
        one = PreparedSlice(np.zeros((50, 50), np.float32), sets, lung, Placement(50, 50))
        done = resize(one, size)
        for array, before in ((done.label_sets, sets), (done.lung, lung.view(np.uint8))):
            expected = Image.fromarray(before).resize((size, size), Image.Resampling.NEAREST)
            np.testing.assert_array_equal(array, np.asarray(expected))
            assert array.dtype == (bool if array is done.lung else np.uint8)


def test_padding_is_background_but_unlabelled_slices_stay_unlabelled() -> None:
    labelled = new_slice(4, 8)
    assert (pad_to_square(labelled).label_sets[:2] == 1).all()
    unlabelled = replace(labelled, label_sets=np.full((4, 8), ALL_LABELS, np.uint8))
    assert (pad_to_square(unlabelled).label_sets == ALL_LABELS).all()


def test_zero_outside_blackens_only_what_is_outside() -> None:
    lung = np.eye(6, dtype=bool)
    before = new_slice(6, 6, lung)
    after = zero_outside(before)
    assert (after.image[lung] == before.image[lung]).all()
    assert (after.image[~lung] == 0).all()


def test_window_clips_and_scales() -> None:
    hu = np.array([-2000.0, -1250, -500, 250, 3000])
    assert window(hu, -1250, 250).tolist() == [0, 0, 0.5, 1, 1]


def test_opening_drops_specks_and_closing_fills_gaps() -> None:
    lung = np.zeros((1, 60, 60), bool)
    lung[0, 10:50, 10:50] = True
    lung[0, 30, 30] = False  # a gap
    lung[0, 3, 3] = True  # a speck
    smooth = open_and_close(lung, (5.0, 1.0, 1.0), 2, 2)
    assert smooth[0, 30, 30]
    assert not smooth[0, 3, 3]
    assert (smooth != lung).sum() <= 2 + 4 * 4  # otherwise only corners change
    full = np.ones((1, 5, 5), bool)
    assert open_and_close(full, (1.0, 1.0, 1.0), 2, 2).all()
    assert not open_and_close(~full, (1.0, 1.0, 1.0), 2, 2).any()


def test_radii_are_lengths() -> None:
    speck = np.zeros((1, 41, 41), bool)
    speck[0, 18:23, 18:23] = True
    assert open_and_close(speck, (1.0, 1.0, 1.0), 1.5, 0).any()
    assert not open_and_close(speck, (1.0, 0.5, 0.5), 1.5, 0).any()


def phantom_volume(hounsfield: bool) -> tuple[Volume, np.ndarray]:
    made = phantom_slices([0], 4, size=96)
    images, labels = made.images.numpy(), made.labels().numpy()
    voxels = images * 1500 - 1250 if hounsfield else images
    volume = Volume(voxels, axial_affine((5.0, 3.0, 3.0)), hounsfield, Path("phantom"))
    return volume, (1 << labels).astype(np.uint8)


@pytest.mark.parametrize("hounsfield", [True, False])
def test_a_scan_becomes_slices_around_the_lung(hounsfield: bool) -> None:
    volume, sets = phantom_volume(hounsfield)
    made = list(Preprocessing(size=64, zero_outside=True).slices(Stack.of(volume), sets))
    assert made
    for one in made:
        assert one.image.shape == (64, 64)
        assert one.image.dtype == np.float32
        assert 0 <= one.image.min() <= one.image.max() <= 1
        truth = sets[one.index] > 1
        kept = one.placement.back(np.ones((64, 64), bool))
        assert (kept & truth).sum() > 0.9 * truth.sum()


def test_turned_scans_give_the_same_slices() -> None:
    volume, sets = phantom_volume(True)
    flip = np.diag([1.0, -1, 1, 1])
    flip[1, 3] = volume.voxels.shape[1] - 1
    turned = replace(volume, voxels=volume.voxels[:, ::-1], affine=volume.affine @ flip)
    preprocessing = Preprocessing(size=64)
    slices = preprocessing.slices(Stack.of(volume), sets)
    turned_sets = to_axial(sets[:, ::-1], turned.affine)
    for a, b in zip(slices, preprocessing.slices(Stack.of(turned), turned_sets), strict=True):
        assert (a.image == b.image).all()
        assert (a.label_sets == b.label_sets).all()
        assert a.placement == b.placement


def test_slices_without_neighbours_are_segmented_one_by_one() -> None:
    volume, sets = phantom_volume(True)
    alone = [
        next(Preprocessing(size=64).slices(Stack.of(replace(volume, voxels=v[None])), s[None]))
        for v, s in zip(volume.voxels, sets, strict=True)
    ]
    apart = list(Preprocessing(size=64).slices(Stack.of(volume), sets, stacked=False))
    assert [p.placement for p in apart] == [p.placement for p in alone]


def test_slices_without_lung_are_left_out() -> None:
    volume, sets = phantom_volume(True)
    volume.voxels[1] = -1000
    volume.voxels[1, 40:50, 40:50] = 40
    slices = Preprocessing(size=64).slices(Stack.of(volume), sets, stacked=False)
    assert [one.index for one in slices] == [0, 2, 3]


def test_lungs_none_takes_the_whole_image() -> None:
    volume, sets = phantom_volume(False)
    made = list(Preprocessing(size=96, lungs="none").slices(Stack.of(volume), sets))
    assert [one.index for one in made] == [0, 1, 2, 3]
    for one in made:
        assert (one.image == volume.voxels[one.index]).all()
        assert (one.label_sets == sets[one.index]).all()


@pytest.mark.parametrize(
    ("voxels", "white"), [(np.array([0.0, 0.7]), 1), ([0, 200], 255), ([0, 50000], 65535)]
)
def test_white_depends_on_the_largest_grey_value(voxels: np.ndarray, white: float) -> None:
    whole = np.zeros((1, 32, 32), np.float32)
    whole[0, 0, :2] = voxels
    volume = Volume(whole, axial_affine(), False, Path("grey"))
    made = next(Preprocessing(size=32, lungs="none").slices(Stack.of(volume)))
    assert made.image[0, 1] == pytest.approx(voxels[1] / white)


def test_values_from_minus_1_to_1_are_a_full_scale() -> None:
    whole = np.linspace(-1, 0.8, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    volume = Volume(whole, axial_affine(), False, Path("grey"))
    made = next(Preprocessing(size=32, lungs="none").slices(Stack.of(volume)))
    assert (made.image.min(), made.image.max()) == pytest.approx((0, 0.9))


@pytest.mark.parametrize("ends", [(0, 1900), (0, 5), (-3, 5), (-160, 240)])
def test_neither_hounsfield_units_nor_a_full_scale_are_refused(ends: tuple[int, int]) -> None:
    whole = np.linspace(*ends, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    volume = Volume(whole, axial_affine(), False, Path("grey.nii"))
    with pytest.raises(ValueError, match=r"^grey\.nii: its grey values, .* are neither Hounsfield"):
        next(Preprocessing(size=32, lungs="none").slices(Stack.of(volume)))


def test_hounsfield_units_plus_1000_are_refused_though_a_header_claims_hounsfield_units() -> None:
    whole = np.linspace(0, 1900, 32 * 32, dtype=np.float32).reshape(1, 32, 32)
    volume = Volume(whole, axial_affine(), True, Path("ct"))
    with pytest.raises(ValueError, match=r"^ct: .* no air or lung, .* correct its Rescale"):
        next(Preprocessing(size=32, lungs="none").slices(Stack.of(volume)))


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not a number"), (7.0, "all its voxels")])
def test_voxels_without_content_are_refused_by_name(value: float, message: str) -> None:
    volume = Volume(np.full((1, 32, 32), value), axial_affine(), False, Path("bad.npy"))
    with pytest.raises(ValueError, match=rf"^bad\.npy.*{message}"):
        next(Preprocessing(size=32).slices(Stack.of(volume)))


def test_without_label_sets_every_pixel_is_unlabelled() -> None:
    volume, _ = phantom_volume(True)
    stack = Stack.of(volume)
    unlabelled = np.full(volume.voxels.shape, ALL_LABELS, np.uint8)
    slices = Preprocessing(size=64).slices(stack)
    for a, b in zip(slices, Preprocessing(size=64).slices(stack, unlabelled), strict=True):
        assert (a.label_sets == ALL_LABELS).all()
        assert (a.label_sets == b.label_sets).all()
        assert (a.image == b.image).all()


@careful
@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)))
def test_bytes_are_the_nearest_of_256_levels(image: np.ndarray) -> None:
    stored = to_bytes(image)
    assert stored.dtype == np.uint8
    assert np.abs(stored / 255.0 - image).max() <= 0.5 / 255 + 1e-6
    assert (to_bytes((stored / 255).astype(np.float32)) == stored).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 100}, "multiple of 32"),
        ({"window": (1.0, 1.0)}, "below the second"),
        ({"lungs": "clasical"}, "choose one of classical, lungmask"),
        ({"margin": -1.0}, "margin must be at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**wrong)
