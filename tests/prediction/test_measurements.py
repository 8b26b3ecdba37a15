"""Volumes, sides, thirds and severity of boxes and phantoms with known values."""

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.data.phantoms.phantom import phantom_patient
from pyro_stitchnet.data.scans.volume import to_axial
from pyro_stitchnet.prediction.measurements import (
    Tally,
    _score,
    measurements_of,
    separating_column,
    split_by_height,
    voxel_ml,
)

AXIAL = np.diag([-0.8, -0.7, 5.0, 1.0])  # columns to the left, rows to the back, slices to the head


def chest() -> tuple[np.ndarray, np.ndarray]:
    """Labels and HU (I, J, K) of two boxes of lung; the right one is larger and has more GGO."""
    labels = np.zeros((40, 20, 18), np.uint8)
    labels[4:18, 4:16, 3:15] = 1  # first along -x: the patient's right
    labels[24:34, 4:16, 3:15] = 1
    labels[4:18, 4:16, 3:7] = 2  # the lower third
    labels[24:34, 4:10, 9:15] = 3  # half of the upper half of the left
    hu = np.choose(labels, [40, -850, -500, -50]).astype(np.int16)
    return labels, hu


def measure(labels: np.ndarray, hu: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    """Measurements of labels and HU (I, J, K), counted slice by slice."""
    axial_labels, axial_hu = to_axial(labels, affine), to_axial(hu, affine)
    tally = Tally.empty(len(axial_labels), axial_labels.shape[2])
    for index, (one, grey) in enumerate(zip(axial_labels, axial_hu, strict=True)):
        tally.add(index, one, grey)
    return measurements_of(tally, voxel_ml(affine))


def test_measurements_of_boxes() -> None:
    labels, hu = chest()
    measured = measure(labels, hu, AXIAL)
    ml = 0.8 * 0.7 * 5 / 1000
    assert measured["volumes_ml"]["lung"] == pytest.approx(24 * 12 * 12 * ml, abs=1e-3)
    assert measured["volumes_ml"]["ggo"] == pytest.approx(14 * 12 * 4 * ml, abs=1e-3)
    assert measured["percent_of_lung"]["consolidation"] == pytest.approx(100 * 360 / 3456, abs=1e-3)
    assert measured["sides"]["right"]["volumes_ml"]["lung"] == pytest.approx(
        14 * 144 * ml, abs=1e-3
    )
    assert measured["sides"]["left"]["volumes_ml"]["ggo"] == 0
    assert measured["thirds"]["lower"]["percent_of_lung"]["ggo"] == pytest.approx(
        100 * 14 / 24, 1e-3
    )
    assert measured["thirds"]["upper"]["volumes_ml"]["ggo"] == 0
    assert measured["mean_hu"] == {"healthy": -850, "ggo": -500, "consolidation": -50}
    # Right: thirds at 100, 0 and 0 %; left: halves at 0 and 50 %.
    assert measured["severity_score"] == 5 + 0 + 0 + 0 + 4


@pytest.mark.parametrize("codes", ["LPS", "RAS", "RPI", "ASL", "SLP", "PIR"])
def test_measurements_do_not_depend_on_the_orientation_of_the_file(codes: str) -> None:
    labels, hu = chest()
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(AXIAL), nib.orientations.axcodes2ornt(tuple(codes))
    )
    affine = AXIAL @ nib.orientations.inv_ornt_aff(turn, labels.shape)
    assert nib.aff2axcodes(affine) == tuple(codes)
    turned, units = (nib.orientations.apply_orientation(one, turn) for one in (labels, hu))
    assert measure(turned, units, affine) == measure(labels, hu, AXIAL)


def test_mirroring_the_scan_swaps_the_sides() -> None:
    labels, hu = chest()
    ordinary, mirrored = measure(labels, hu, AXIAL), measure(labels[::-1], hu[::-1], AXIAL)
    assert mirrored["sides"]["left"] == ordinary["sides"]["right"]
    assert mirrored["sides"]["right"] == ordinary["sides"]["left"]


@pytest.mark.parametrize("patient", [1, 2, 3])
def test_volumes_of_phantoms_are_within_two_percent(patient: int) -> None:
    """With true labels; the reference has three times as many slices."""
    coarse, fine = (
        np.stack([one.labels for one in phantom_patient(patient, n, size=64)]).T for n in (20, 60)
    )
    grey = np.zeros(1, np.int16)
    measured = measure(coarse, np.broadcast_to(grey, coarse.shape), np.diag([-5, -5, 15.0, 1]))
    for name, values in (("lung", (1, 2, 3)), ("infection", (2, 3))):
        truth = np.isin(fine, values).sum() * 5 * 5 * 5 / 1000
        assert measured["volumes_ml"][name] == pytest.approx(truth, rel=0.02, abs=2)
    parts = [part["volumes_ml"]["lung"] for part in measured["thirds"].values()]
    assert sum(parts) == pytest.approx(measured["volumes_ml"]["lung"], abs=0.01)


def test_a_tilted_gantry_does_not_change_volumes() -> None:
    labels, hu = chest()
    tilted = AXIAL.copy()
    tilted[1, 2] = 2.0
    assert measure(labels, hu, tilted)["volumes_ml"] == measure(labels, hu, AXIAL)["volumes_ml"]


def test_undefined_measurements_are_none() -> None:
    labels = np.zeros((5, 6, 7), np.uint8)
    measured = measure(labels, labels, AXIAL)
    assert measured["volumes_ml"]["lung"] == 0
    assert measured["percent_of_lung"]["infection"] is None
    assert measured["severity_score"] is None
    assert set(measured["mean_hu"].values()) == {None}


SCORES = [(0, 0), (0.1, 1), (4.99, 1), (5, 2), (25, 2), (25.1, 3), (49.9, 3), (50, 4), (75, 4)]


@pytest.mark.parametrize(("percent", "score"), [*SCORES, (75.1, 5), (100, 5), (None, 0)])
def test_scores_of_a_region(percent: float | None, score: int) -> None:
    assert _score(percent) == score


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(1, 5))
@settings(derandomize=True, deadline=None)
def test_parts_sum_to_the_whole(lung: list[int], n: int) -> None:
    counts = np.zeros((len(lung), 4))
    counts[:, 1] = lung
    parts = split_by_height(counts, n)
    assert len(parts) == n
    assert np.allclose(np.sum(parts, 0), counts.sum(0))


def test_the_lungs_are_separated_at_the_column_with_least_lung() -> None:
    profile: Any = [0, 0, 9, 9, 9, 9, 2, 1, 3, 9, 9, 9, 9, 9, 0]
    assert separating_column(np.array(profile)) == 7
    gap: Any = [9, 9, 9, 9, 0, 0, 0, 9, 9, 9, 9]
    assert separating_column(np.array(gap)) == 5
