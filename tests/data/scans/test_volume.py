"""The place of a voxel does not depend on the order in which its file stores it."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import voxel_sizes

from pyro_stitchnet.data.scans.volume import (
    Volume,
    axial_affine,
    axial_spacing,
    from_axial,
    to_axial,
)

SPACING = (1.0, 2.0, 3.0)


def spacing(volume: Volume) -> tuple[float, ...]:
    return tuple(voxel_sizes(volume.affine).tolist())


def every_orientation() -> list[np.ndarray]:
    """Return the affines of all 48 orientations of a grid."""
    affines = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1, -1], repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, order] * np.multiply(signs, SPACING)
            affines.append(affine)
    return affines


@pytest.mark.parametrize("affine", every_orientation())
def test_axial_slices_run_feet_to_head_front_to_back_right_to_left(affine: np.ndarray) -> None:
    shape = (2, 3, 4)
    grid = np.arange(24).reshape(shape)
    places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T  # mm, RAS+
    left, front, head = (to_axial(places[..., axis], affine) for axis in range(3))
    volume = Volume(grid, affine, True, Path("scan"))
    between, row, column = axial_spacing(affine)
    assert np.diff(head, axis=0) == pytest.approx(between)
    assert np.diff(front, axis=1) == pytest.approx(-row)
    assert np.diff(left, axis=2) == pytest.approx(-column)
    assert (from_axial(volume.axial(), affine) == grid).all()


def test_an_axial_affine_leaves_a_grid_as_it_is() -> None:
    grid = np.arange(24).reshape(2, 3, 4)
    volume = Volume(grid, axial_affine(SPACING), True, Path("scan"))
    assert (volume.axial() == grid).all()
    assert spacing(volume) == axial_spacing(volume.affine) == SPACING


def test_an_oblique_scan_is_shown_along_its_own_axes() -> None:
    turn = np.eye(4)
    angle = np.deg2rad(20)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    grid = np.arange(24).reshape(2, 3, 4)
    assert (to_axial(grid, turn @ axial_affine()) == grid).all()


@pytest.mark.parametrize(
    ("voxels", "affine", "message"),
    [
        (np.zeros((2, 2)), np.eye(4), "three axes"),
        (np.zeros((2, 0, 2)), np.eye(4), "longer than 0"),
        (np.zeros((2, 2, 2)), np.eye(3), "finite 4x4"),
        (np.zeros((2, 2, 2)), np.full((4, 4), np.nan), "finite 4x4"),
        (np.zeros((2, 2, 2)), np.diag([1.0, 0, 1, 1]), "singular"),
        (np.zeros((2, 2, 2)), np.eye(4)[[0, 0, 2, 3]], "singular"),
        (np.zeros((2, 2, 2)), np.diag([1.0, 0.001, 1, 1]), "1 x 0.001 x 1 mm apart.*correct its"),
        (np.zeros((2, 2, 2)), np.diag([1.0, 1, 101, 1]), "0.01 to 100 mm apart; correct its spac"),
        (np.zeros((2, 2, 2)), np.diag([1.0, 1, 1e300, 1]), "correct its geometry"),
        (np.zeros((2, 2, 2)), np.eye(4) + np.eye(4, k=3) * 1e6, "from the origin"),
    ],
)
def test_an_invalid_volume_is_refused_by_name(
    voxels: np.ndarray, affine: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"^scan\.nii.*{message}"):
        Volume(voxels, affine, True, Path("scan.nii"))
