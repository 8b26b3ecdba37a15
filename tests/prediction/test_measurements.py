"""Volumes, sides, thirds and severity against counts made another way."""

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_stitchnet.data.phantoms.phantom import phantom_patient
from pyro_stitchnet.prediction.measurements import _score, figures, middle, parted

AXIAL = np.diag([-0.8, -0.7, 5.0, 1.0])  # columns to the left, rows to the back, slices to the head


def chest() -> tuple[np.ndarray, np.ndarray]:
    """Labels and HU (I, J, K) of two boxes of lung: the patient's right is larger and diseased."""
    labels = np.zeros((40, 20, 18), np.uint8)
    labels[4:18, 4:16, 3:15] = 1  # first along -x: the patient's right
    labels[24:34, 4:16, 3:15] = 1
    labels[4:18, 4:16, 3:7] = 2  # the lower third
    labels[24:34, 4:10, 9:15] = 3  # half of the upper half of the left
    hu = np.choose(labels, [40, -850, -500, -50]).astype(np.int16)
    return labels, hu


def test_figures_of_boxes() -> None:
    labels, hu = chest()
    said = figures(labels, hu, AXIAL)
    ml = 0.8 * 0.7 * 5 / 1000
    assert said["volumes_ml"]["lung"] == pytest.approx(24 * 12 * 12 * ml, abs=1e-3)
    assert said["volumes_ml"]["ggo"] == pytest.approx(14 * 12 * 4 * ml, abs=1e-3)
    assert said["percent_of_lung"]["consolidation"] == pytest.approx(100 * 360 / 3456, abs=1e-3)
    assert said["sides"]["right"]["volumes_ml"]["lung"] == pytest.approx(14 * 144 * ml, abs=1e-3)
    assert said["sides"]["left"]["volumes_ml"]["ggo"] == 0
    assert said["thirds"]["lower"]["percent_of_lung"]["ggo"] == pytest.approx(100 * 14 / 24, 1e-3)
    assert said["thirds"]["upper"]["volumes_ml"]["ggo"] == 0
    assert said["mean_hu"] == {"healthy": -850, "ggo": -500, "consolidation": -50}
    # Right: thirds at 100, 0 and 0 %; left: halves at 0 and 50 %.
    assert said["severity_score"] == 5 + 0 + 0 + 0 + 4


@pytest.mark.parametrize("codes", ["LPS", "RAS", "RPI", "ASL", "SLP", "PIR"])
def test_axes_of_the_file_do_not_matter(codes: str) -> None:
    labels, hu = chest()
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(AXIAL), nib.orientations.axcodes2ornt(tuple(codes))
    )
    affine = AXIAL @ nib.orientations.inv_ornt_aff(turn, labels.shape)
    assert nib.aff2axcodes(affine) == tuple(codes)
    turned, units = (nib.orientations.apply_orientation(one, turn) for one in (labels, hu))
    assert figures(turned, units, affine) == figures(labels, hu, AXIAL)


def test_mirrored_patients_have_mirrored_sides() -> None:
    labels, hu = chest()
    ordinary, mirrored = figures(labels, hu, AXIAL), figures(labels[::-1], hu[::-1], AXIAL)
    assert mirrored["sides"]["left"] == ordinary["sides"]["right"]
    assert mirrored["sides"]["right"] == ordinary["sides"]["left"]


@pytest.mark.parametrize("patient", [1, 2, 3])
def test_volumes_of_phantoms_are_within_two_percent(patient: int) -> None:
    """Given true labels; the truth is from a cut three times as fine along the body."""
    coarse, fine = (
        np.stack([one.labels for one in phantom_patient(patient, n, size=64)]).T for n in (20, 60)
    )
    grey = np.zeros(1, np.int16)
    said = figures(coarse, np.broadcast_to(grey, coarse.shape), np.diag([-5, -5, 15.0, 1]))
    for name, wanted in (("lung", (1, 2, 3)), ("infection", (2, 3))):
        truth = np.isin(fine, wanted).sum() * 5 * 5 * 5 / 1000
        assert said["volumes_ml"][name] == pytest.approx(truth, rel=0.02, abs=2)
    parts = [part["volumes_ml"]["lung"] for part in said["thirds"].values()]
    assert sum(parts) == pytest.approx(said["volumes_ml"]["lung"], abs=0.01)


def test_a_tilted_gantry_does_not_make_voxels_larger() -> None:
    labels, hu = chest()
    tilted = AXIAL.copy()
    tilted[1, 2] = 2.0
    assert figures(labels, hu, tilted)["volumes_ml"] == figures(labels, hu, AXIAL)["volumes_ml"]


def test_nothing_found_is_nothing_said() -> None:
    labels = np.zeros((5, 6, 7), np.uint8)
    said = figures(labels, labels, AXIAL)
    assert said["volumes_ml"]["lung"] == 0
    assert said["percent_of_lung"]["infection"] is None
    assert said["severity_score"] is None
    assert set(said["mean_hu"].values()) == {None}


SCORES = [(0, 0), (0.1, 1), (4.99, 1), (5, 2), (25, 2), (25.1, 3), (49.9, 3), (50, 4), (75, 4)]


@pytest.mark.parametrize(("percent", "score"), [*SCORES, (75.1, 5), (100, 5), (None, 0)])
def test_scores_of_a_region(percent: float | None, score: int) -> None:
    assert _score(percent) == score


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(1, 5))
@settings(derandomize=True, deadline=None)
def test_parts_add_up(lung: list[int], n: int) -> None:
    counts = np.zeros((len(lung), 4))
    counts[:, 1] = lung
    parts = parted(counts, n)
    assert len(parts) == n
    assert np.allclose(np.sum(parts, 0), counts.sum(0))


def test_the_plane_between_the_lungs_is_where_least_lung_is() -> None:
    profile: Any = [0, 0, 9, 9, 9, 9, 2, 1, 3, 9, 9, 9, 9, 9, 0]
    assert middle(np.array(profile)) == 7
    gap: Any = [9, 9, 9, 9, 0, 0, 0, 9, 9, 9, 9]
    assert middle(np.array(gap)) == 5
