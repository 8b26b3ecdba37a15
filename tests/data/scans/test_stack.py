"""Grey values without a unit are taken for what they are, or refused."""

from pathlib import Path

import numpy as np
import pytest

from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume, axial_affine


def stack(smallest: float, largest: float, scale: tuple[float, float] | None = None) -> Stack:
    voxels = np.linspace(smallest, largest, 24, dtype=np.float32).reshape(2, 3, 4)
    return Stack.of(Volume(voxels, axial_affine(), False, Path("scan.nii"), scale=scale))


@pytest.mark.parametrize(
    ("smallest", "largest", "scale"),
    [
        (0, 1, (0, 1)),
        (0.1, 0.8, (0, 1)),
        (-0.02, 1.03, (0, 1)),  # interpolated
        (-1, 1, (-1, 1)),
        (0, 255, (0, 255)),
        (3, 180, (0, 255)),
        (0, 60000, (0, 65535)),
    ],
)
def test_a_scale_that_grey_values_span_is_theirs(
    smallest: float, largest: float, scale: tuple[float, float]
) -> None:
    assert stack(smallest, largest).full_scale() == scale


@pytest.mark.parametrize(
    ("smallest", "largest"),
    [
        (0, 1900),  # HU + 1000
        (24, 4095),  # HU + 1024
        (-160, 240),  # clipped to a window
        (-200, 900),
        (0, 0.5),  # linear attenuation, 1/cm
        (0, 6),  # labels
        (0, 1.9),  # density
        (-3, 5),  # z-scores
        (0, 100),
        (0.6, 1),
    ],
)
def test_other_grey_values_are_refused_with_a_remedy(smallest: float, largest: float) -> None:
    with pytest.raises(ValueError, match=r"^scan\.nii: its grey values, .* neither .* convert"):
        stack(smallest, largest).full_scale()


@pytest.mark.parametrize(("smallest", "largest"), [(0, 1900), (24, 4095), (-24, 3071)])
def test_hounsfield_units_plus_1000_are_recognised(smallest: float, largest: float) -> None:
    with pytest.raises(ValueError, match="plus 1000 or 1024, subtract that"):
        stack(smallest, largest).full_scale()


def test_the_scale_of_a_format_holds_whatever_the_values() -> None:
    assert stack(40, 70, (0.0, 255.0)).full_scale() == (0, 255)


@pytest.mark.parametrize(("smallest", "largest"), [(0, 5), (0, 4095 / 257), (123, 131)])
def test_a_few_grey_levels_of_a_format_are_refused(smallest: float, largest: float) -> None:
    """As of Hounsfield units plus 1024 or 32768 in PNG files of 16 bits."""
    with pytest.raises(ValueError, match=r"^scan\.nii: .* less than a tenth .* lung window"):
        stack(smallest, largest, (0.0, 255.0)).full_scale()
