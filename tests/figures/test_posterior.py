"""Figures of the posterior: the order of the images, their values and their scale."""

import numpy as np
import pytest

from pyro_stitchnet import figures
from pyro_stitchnet.figures.grids import overlay

rng = np.random.default_rng(0)
IMAGES, MAPS = rng.random((2, 3, 16, 24))
TRUTH, PREDICTED = rng.integers(0, 4, (2, 3, 16, 24))


def test_uncertainties_have_scales_and_errors() -> None:
    figure = figures.uncertainties(
        IMAGES, PREDICTED, {"entropy": MAPS, "none": 0 * MAPS}, TRUTH, names=list("abc")
    )
    top = figure.axes[:6]
    assert [ax.get_title() for ax in top[:4]] == ["slice", "segmentation", "truth", "errors"]
    assert top[4].get_title() == "entropy\n0 to 1"
    errors = figure.axes[6 + 3].images[0].get_array()
    np.testing.assert_array_equal(errors, TRUTH[1] != PREDICTED[1])
    drawn = np.asarray(figure.axes[4].images[0].get_array())
    brightest = np.unravel_index(drawn.sum(-1).argmax(), drawn.shape[:2])
    assert MAPS[0][brightest] > 0.99
    assert np.asarray(figure.axes[5].images[0].get_array()).max() < 0.02  # all black
    without = figures.uncertainties(IMAGES, PREDICTED, {"entropy": MAPS})
    assert len(without.axes) == 3 * 3


def test_counterfactuals_are_between_labels_and_truth() -> None:
    figure = figures.counterfactuals(IMAGES, PREDICTED, {"healed": MAPS}, IMAGES[::-1])
    assert [ax.get_title() for ax in figure.axes[:4]] == ["slice", "labels", "healed", "truth"]
    second = [np.asarray(ax.images[0].get_array()) for ax in figure.axes[4:8]]
    np.testing.assert_array_equal(second[1], overlay(IMAGES[1], PREDICTED[1]))
    np.testing.assert_array_equal(second[2], MAPS[1])
    np.testing.assert_array_equal(second[3], IMAGES[1])


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="entropy has shape"):
        figures.uncertainties(IMAGES, PREDICTED, {"entropy": MAPS[:1]})
    with pytest.raises(ValueError, match="healed has shape"):
        figures.counterfactuals(IMAGES, PREDICTED, {"healed": MAPS[:, :3]})
