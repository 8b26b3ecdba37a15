"""Morphology with discs, compared with brute force, and properties of opening and closing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.distance import cdist

from pyro_stitchnet.data.preprocessing.morphology import closed, dilated, eroded, opened

careful = settings(derandomize=True, deadline=None)

masks = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))
radii = st.sampled_from([0.0, 0.5, 1.0, 1.4, 2.0, 2.5, 5.0, 40.0])
pixels = st.tuples(*[st.sampled_from([0.5, 0.75, 1.0, 3.0])] * 2)  # exact in binary


def near(mask: np.ndarray, radius: float, pixel: tuple[float, ...]) -> np.ndarray:
    """Return the pixels at most a radius from the mask, by brute force."""
    if not mask.any():
        return mask
    centres = np.argwhere(np.ones_like(mask)) * pixel
    return (cdist(centres, centres[mask.ravel()]).min(1) <= radius).reshape(mask.shape)


@careful
@given(masks, radii, pixels)
def test_a_disc_covers_the_pixels_within_its_radius(
    mask: np.ndarray, radius: float, pixel: tuple[float, float]
) -> None:
    before = mask.copy()
    assert (dilated(mask, radius, pixel) == near(mask, radius, pixel)).all()
    assert (eroded(mask, radius, pixel) == ~near(~mask, radius, pixel)).all()
    assert (mask == before).all()


@careful
@given(masks, radii, pixels)
def test_opening_shrinks_closing_grows_and_both_are_idempotent(
    mask: np.ndarray, radius: float, pixel: tuple[float, float]
) -> None:
    less, more = opened(mask, radius, pixel), closed(mask, radius, pixel)
    assert (less <= mask).all()
    assert (mask <= more).all()
    assert (opened(less, radius, pixel) == less).all()
    assert (closed(more, radius, pixel) == more).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (0, 3)])
def test_masks_smaller_than_the_disc(shape: tuple[int, int]) -> None:
    assert dilated(np.zeros(shape, bool), 9.0, (1.0, 1.0)).shape == shape
    assert dilated(np.ones(shape, bool), 9.0, (1.0, 1.0)).all()
    assert eroded(np.ones(shape, bool), 9.0, (1.0, 1.0)).all()
