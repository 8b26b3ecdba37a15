"""What lies outside the field of view, whatever its value, is air."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pyro_stitchnet.data.phantoms.phantom import PHANTOM_WINDOW, phantom_patient
from pyro_stitchnet.data.preprocessing.fill import without_fill
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.scans.stack import Spool, Stack
from pyro_stitchnet.data.scans.volume import Volume, axial_affine

SIZE, SLICES = 128, 4
STEPS = Preprocessing(size=64)
Y, X = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
DISC = np.hypot(Y, X) > 1
FILLS = (0.0, 1000.0, 40.0, -500.0)


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    """A phantom in HU with noise, (S, R, C), in the middle of much air."""
    low, high = PHANTOM_WINDOW
    slices = np.stack([one.image for one in phantom_patient(3, SLICES, size=96)])
    units = np.pad(slices, ((0, 0), (16, 16), (16, 16))) * (high - low) + low
    noise = np.random.default_rng(0).normal(0, 15, units.shape)
    whole: np.ndarray = (units.clip(-1000) + noise).astype(np.float32)
    return whole


def stack_of(slices: np.ndarray, *, hounsfield: bool = True) -> Stack:
    volume = Volume(slices, axial_affine((8.0, 2.5, 2.5)), hounsfield, Path("scan"))
    return Stack.of(volume)


def cleaned(stack: Stack) -> np.ndarray:
    return np.stack([*without_fill(stack, STEPS.limits(stack)).slices])


def lung_pixels(slices: np.ndarray, *, hounsfield: bool = True) -> float:
    stack = stack_of(slices, hounsfield=hounsfield)
    return float(sum(one.lung.mean() / one.placement.pixel**-2 for one in STEPS.slices(stack)))


@pytest.mark.parametrize("value", FILLS)
def test_outside_a_disc_is_air(hu: np.ndarray, value: float) -> None:
    expected = np.where(DISC, np.float32(-1024), hu)
    found = cleaned(stack_of(np.where(DISC, np.float32(value), hu)))
    assert (found != expected).mean() < 1e-3
    assert lung_pixels(np.where(DISC, value, hu)) == pytest.approx(lung_pixels(expected), rel=0.01)


@pytest.mark.parametrize("value", FILLS)
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("angle", "axes"), [(3, (1, 2)), (30, (1, 2)), (9, (0, 1))])
def test_turned_scans_have_the_lungs_of_scans_turned_with_air(
    hu: np.ndarray, value: float, order: int, angle: float, axes: tuple[int, int]
) -> None:
    turn = {"angle": angle, "axes": axes, "reshape": False, "order": order}
    filled, right = (ndimage.rotate(hu, **turn, cval=fill) for fill in (value, -1024))
    assert lung_pixels(filled) == pytest.approx(lung_pixels(right), rel=0.02)


@pytest.mark.parametrize("shift", [(0, 20, 0), (0, 0, -15), (0, 7, 9), (1, 0, 0)])
def test_shifted_scans_are_filled_with_air(hu: np.ndarray, shift: tuple[int, ...]) -> None:
    filled, right = (ndimage.shift(hu, shift, order=0, cval=fill) for fill in (0, -1024))
    assert np.array_equal(cleaned(stack_of(filled)), right)


@pytest.mark.parametrize("value", [-1024.0, -1000.0, -2000.0, -3024.0])
def test_fill_as_dark_as_air_stays(hu: np.ndarray, value: float) -> None:
    whole = np.where(DISC, np.float32(value), hu)
    assert np.array_equal(cleaned(stack_of(whole)), whole)


def test_a_scan_without_fill_stays(hu: np.ndarray) -> None:
    assert np.array_equal(cleaned(stack_of(hu)), hu)


@pytest.mark.parametrize("hounsfield", [True, False])
def test_clipped_tissue_is_no_fill(hounsfield: bool) -> None:
    """Cropped to the lungs and clipped, tissue is constant, touches the border, and stays."""
    lungs = ((np.abs(X) - 0.45) / 0.4) ** 2 + (Y / 0.8) ** 2 < 1
    white = 0.0 if hounsfield else 255.0
    whole = np.where(lungs, np.float32(white - 200), np.float32(white))[None]
    assert np.array_equal(cleaned(stack_of(whole, hounsfield=hounsfield)), whole)


def test_pictures_with_a_white_border_are_black_there(hu: np.ndarray) -> None:
    grey = ((hu + 1250) / 1500 * 255).clip(0, 255).round()
    expected = np.where(DISC, 0, grey)
    for value in (255, 128):
        stack = stack_of(np.where(DISC, np.float32(value), grey), hounsfield=False)
        assert (cleaned(stack) != expected).mean() < 1e-3


def test_some_equal_neighbours_at_a_corner_are_no_fill() -> None:
    grey = np.random.default_rng(0).integers(100, 255, (1, 64, 64)).astype(np.float32)
    grey[0, :4, :4] = 180
    assert np.array_equal(cleaned(stack_of(grey, hounsfield=False)), grey)


def test_streamed_slices_are_the_same(hu: np.ndarray, tmp_path: Path) -> None:
    whole = stack_of(np.where(DISC, np.float32(1000), hu))
    spool = Spool(tmp_path / "spool", (SIZE, SIZE), np.float32)
    for one in whole.slices:
        spool.append(one)
    streamed = Stack(spool, *(getattr(whole, name) for name in (
        "shape", "affine", "spacing", "hounsfield", "range", "source",
    )))  # fmt: skip
    assert np.array_equal(cleaned(streamed), cleaned(whole))
    for a, b in zip(STEPS.slices(streamed), STEPS.slices(whole), strict=True):
        assert np.array_equal(a.image, b.image)


def test_the_scan_itself_does_not_change(hu: np.ndarray) -> None:
    whole = np.where(DISC, np.float32(0), hu)
    before = whole.copy()
    assert not np.array_equal(cleaned(stack_of(whole)), before)
    assert np.array_equal(whole, before)
