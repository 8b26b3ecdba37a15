"""The lung field: on phantoms, on images without lungs, and by the optional lungmask."""

import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.morphology import convex_hull_image

from pyro_stitchnet.data.phantoms.phantom import PHANTOM_WINDOW, Phantom, phantom_patient, phantoms
from pyro_stitchnet.data.preprocessing import lungs
from pyro_stitchnet.data.preprocessing.lungs import LUNG_METHODS, classical_lungs, lungmask_lungs

UNKNOWN = (1.0, 1.0, 1.0)
PHANTOMS = list(phantoms(8, 3))


def field(image: np.ndarray) -> np.ndarray:
    found: np.ndarray = classical_lungs(image[None], UNKNOWN, hounsfield=False)[0]
    return found


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def hounsfield(image: np.ndarray) -> np.ndarray:
    low, high = PHANTOM_WINDOW
    units: np.ndarray = image * (high - low) + low
    return units


# --- Quality --------------------------------------------------------------------------------------


def test_lungs_of_phantoms_are_found() -> None:
    scores = [dice(field(phantom.image), phantom.labels > 0) for phantom in PHANTOMS]
    assert min(scores) > 0.75
    assert np.mean(scores) > 0.95


def test_most_of_the_lesions_stays_inside() -> None:
    lesions = [phantom for phantom in PHANTOMS if (phantom.labels > 1).sum() > 50]
    kept = [field(phantom.image)[phantom.labels > 1].mean() for phantom in lesions]
    assert len(kept) > 10
    assert np.mean(kept) > 0.85


def test_consolidation_on_the_chest_wall_is_included() -> None:
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    lung = ((np.abs(x) - 0.45) / 0.38) ** 2 + (y / 0.7) ** 2 < 1
    lesion = lung & (np.hypot(x - 0.83, y) < 0.25)
    image = np.where(lung & ~lesion, 0.2, 0.84)
    image[x**2 + (y / 0.9) ** 2 > 0.99] = 0.0
    found = field(image)
    assert found[lesion].mean() > 0.9
    assert dice(found, lung) > 0.95


def test_trachea_and_bowel_gas_are_left_out_but_the_small_hole_is_filled() -> None:
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    lung = ((np.abs(x) - 0.5) / 0.3) ** 2 + (y / 0.7) ** 2 < 1
    gas = np.hypot(x, y + 0.2) < 0.08
    nodule = np.hypot(x + 0.5, y) < 0.06
    image = np.where(lung & ~nodule, 0.2, 0.84)
    image[gas | (x**2 + (y / 0.9) ** 2 > 0.99)] = 0.0
    found = field(image)
    assert not found[gas].any()
    assert found[nodule].all()


def test_gaps_at_the_image_border_are_no_holes() -> None:
    lung = np.ones((50, 80), bool)
    lung[20:26, 36:44] = False  # a hole in the middle, away from the wall
    lung[:12, 32:48] = lung[-12:, 32:48] = False  # spine and sternum
    found = lungs._with_lesions(lung, (1.0, 1.0))
    assert found[20:26, 36:44].all()
    assert not found[:6, 38:42].any()
    assert not found[-6:, 38:42].any()


# --- Invariances ----------------------------------------------------------------------------------


@pytest.mark.parametrize("phantom", PHANTOMS[1::6])
def test_a_mirrored_slice_gives_a_mirrored_field(phantom: Phantom) -> None:
    mirrored = field(phantom.image[:, ::-1])[:, ::-1]
    assert dice(mirrored, field(phantom.image)) > 0.98


@pytest.mark.parametrize("phantom", PHANTOMS[::6])
def test_hounsfield_units_and_the_window_agree(phantom: Phantom) -> None:
    units = hounsfield(phantom.image)[None]
    found = classical_lungs(units, UNKNOWN, hounsfield=True)[0]
    assert dice(found, field(phantom.image)) > 0.97


@pytest.mark.parametrize("patient", [0, 3])
def test_a_slice_alone_is_as_in_its_volume(patient: int) -> None:
    slices = np.stack([phantom.image for phantom in phantom_patient(patient, 8)])
    together = classical_lungs(slices, UNKNOWN, hounsfield=False)
    assert together.shape == slices.shape
    assert together.dtype == bool
    assert dice(np.stack([field(image) for image in slices]), together) > 0.97


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=12)))
@settings(derandomize=True, deadline=None)
def test_parts_found_slice_by_slice_equal_those_of_the_volume(masks: np.ndarray) -> None:
    parts, n = ndimage.label(masks)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)
    sizes[0] = 0
    share = lungs._SMALLEST_SHARE[len(masks) > 1]
    expected = ((sizes > 0) & (sizes >= share * sizes.max()))[parts]
    assert np.array_equal(np.stack(list(lungs._large(masks))), expected)


def test_half_the_spacing_on_twice_the_pixels_is_the_same() -> None:
    units = hounsfield(PHANTOMS[4].image)[None]
    coarse = classical_lungs(units, (5.0, 2.4, 2.4), hounsfield=True)[0]
    fine = classical_lungs(units.repeat(2, 1).repeat(2, 2), (5.0, 1.2, 1.2), hounsfield=True)[0]
    assert dice(fine, coarse.repeat(2, 0).repeat(2, 1)) > 0.97


@pytest.mark.parametrize("phantom", PHANTOMS[::6])
def test_the_field_of_a_fine_image_has_a_fine_edge(phantom: Phantom) -> None:
    """Three by three pixels are averaged, of sides that are no multiples of three."""
    truth = ndimage.zoom((phantom.labels > 0).astype(float), 5, order=1)[:-1, 1:] > 0.5
    found = field(ndimage.zoom(phantom.image, 5, order=1)[:-1, 1:])
    assert dice(found, truth) > dice(field(phantom.image), phantom.labels > 0) - 0.005
    rows = np.diff(found.astype(int), axis=0).nonzero()[0]
    assert all((rows % 3 == rest).any() for rest in range(3))


@given(hnp.arrays(bool, (5, 7)), st.integers(1, 9), st.integers(2, 60))
@settings(derandomize=True, deadline=None)
def test_the_computed_region_contains_all_changes(
    blocks: np.ndarray, side: int, around: int
) -> None:
    lung = np.pad(blocks.repeat(side, 0).repeat(side, 1), around)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lungs, "_reach", lambda lung: np.s_[:, :])
        expected = lungs._with_lesions(lung, (2.0, 1.5))
    assert np.array_equal(lungs._with_lesions(lung, (2.0, 1.5)), expected)


def test_the_input_does_not_change() -> None:
    image = PHANTOMS[0].image.copy()
    field(image)
    assert np.array_equal(image, PHANTOMS[0].image)


# --- The hull -------------------------------------------------------------------------------------


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)))
@settings(derandomize=True, deadline=None)
def test_the_hull_equals_that_of_scikit_image(mask: np.ndarray) -> None:
    mask[0, 0] = mask[-1, 0] = mask[0, -1] = True
    if min(mask.shape) == 1:  # scikit-image finds no hull of a line
        assert lungs.convex_hull(mask).all()
    else:
        assert np.array_equal(
            lungs.convex_hull(mask), convex_hull_image(mask, offset_coordinates=False)
        )


@pytest.mark.parametrize("step", [(0, 0), (0, 1), (1, 0), (1, 1), (2, -1)])
def test_the_hull_of_a_line_is_the_line(step: tuple[int, int]) -> None:
    mask, line = np.zeros((2, 9, 9), bool)
    for i in range(4):
        line[1 + i * step[0], 5 + i * step[1]] = True
    mask[1, 5] = mask[1 + 3 * step[0], 5 + 3 * step[1]] = True
    assert np.array_equal(lungs.convex_hull(mask), line)


# --- No lungs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-2000.0, -1000.0, 0.0, 40.0, 3000.0])
def test_one_value_in_hounsfield_units_has_no_lungs(value: float) -> None:
    slices = np.full((2, 40, 50), value)
    assert not classical_lungs(slices, (5.0, 0.8, 0.8), hounsfield=True).any()


@given(st.floats(0, 1))
@settings(derandomize=True, deadline=None)
def test_one_grey_value_has_no_lungs(value: float) -> None:
    assert not classical_lungs(np.full((1, 40, 50), value), UNKNOWN, hounsfield=False).any()


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)).map(
        lambda values: np.clip(np.nan_to_num(values), 0, 1)
    ),
    st.booleans(),
)
@settings(derandomize=True, deadline=None)
def test_any_small_image_gives_a_field_of_its_shape(slices: np.ndarray, units: bool) -> None:
    given_units = hounsfield(slices) if units else slices
    found = classical_lungs(given_units, (3.0, 9.0, 8.0), hounsfield=units)
    assert found.shape == slices.shape
    assert found.dtype == bool


def test_a_lung_of_one_pixel_is_a_lung() -> None:
    slices = np.full((1, 9, 9), 40.0)
    slices[0, 4, 4] = -800
    found = classical_lungs(slices, (3.0, 9.0, 9.0), hounsfield=True)
    assert np.argwhere(found).tolist() == [[0, 4, 4]]


@pytest.mark.parametrize("name", LUNG_METHODS)
@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((8, 8), UNKNOWN, r"slices must be \(S, R, C\)"),
        ((0, 8, 8), UNKNOWN, r"slices must be \(S, R, C\)"),
        ((1, 8, 8), (1.0, 1.0), "spacing must be three lengths"),
        ((1, 8, 8), (1.0, 0.0, 1.0), "spacing must be three lengths"),
    ],
)
def test_invalid_shapes_are_refused(
    name: str, shape: tuple[int, ...], spacing: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LUNG_METHODS[name](np.zeros(shape), spacing, hounsfield=True)


# --- lungmask -------------------------------------------------------------------------------------


class Inferer:
    """A stand-in for lungmask's: every voxel below -500 HU is left lung, label 2."""

    made = 0

    def __init__(self, modelname: str = "R231", *, tqdm_disable: bool = False) -> None:
        assert modelname == "R231CovidWeb"
        assert tqdm_disable
        Inferer.made += 1

    def apply(self, image: np.ndarray) -> np.ndarray:
        assert isinstance(image, np.ndarray)
        assert image.dtype == np.float32
        return np.where(image < -500, 2, 0).astype(np.uint8)


@pytest.fixture
def lungmask(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = ModuleType("lungmask")
    module.LMInferer = Inferer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lungmask", module)
    Inferer.made = 0
    lungs._lungmask.cache_clear()
    yield module
    lungs._lungmask.cache_clear()


@pytest.mark.usefixtures("lungmask")
def test_lungmask_gets_hounsfield_units_and_returns_both_lungs() -> None:
    units = np.array([[[-1000, -501, -499, 40]]], np.int16)
    expected = [[[True, True, False, False]]]
    assert lungmask_lungs(units, UNKNOWN, hounsfield=True).tolist() == expected
    grey = (units + 1250) / 1500
    assert lungmask_lungs(grey, UNKNOWN, hounsfield=False).tolist() == expected


@pytest.mark.usefixtures("lungmask")
def test_lungmask_loads_its_weights_once() -> None:
    for _ in range(3):
        lungmask_lungs(np.zeros((1, 8, 8)), UNKNOWN, hounsfield=True)
    assert Inferer.made == 1


def test_importing_lungmask_does_not_change_the_warning_filters(
    lungmask: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quiet(name: str) -> ModuleType:
        warnings.filterwarnings("ignore", category=UserWarning)  # as lungmask does
        return lungmask

    monkeypatch.setattr(lungs, "import_module", quiet)
    before = list(warnings.filters)
    lungmask_lungs(np.zeros((1, 8, 8)), UNKNOWN, hounsfield=True)
    assert list(warnings.filters) == before


@pytest.mark.usefixtures("lungmask")
def test_without_lungmask_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lungmask", None)
    with pytest.raises(ValueError, match=r"pip install lungmask.*'classical'") as caught:
        lungmask_lungs(np.zeros((1, 8, 8)), UNKNOWN, hounsfield=True)
    assert isinstance(caught.value.__cause__, ImportError)


def test_without_weights_the_remedy_is_named(
    lungmask: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(**settings: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(lungmask, "LMInferer", offline)
    with pytest.raises(ValueError, match=r"weights cannot be loaded \(no route to host\).*online"):
        lungmask_lungs(np.zeros((1, 8, 8)), UNKNOWN, hounsfield=True)
