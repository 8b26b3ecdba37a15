"""Pictures of a model's answers: which picture is where, and what scale its title tells."""

import numpy as np
import pytest

from pyro_stitchnet import figures as pictures
from pyro_stitchnet.figures.grids import overlay

rng = np.random.default_rng(0)
IMAGES, DOUBT = rng.random((2, 3, 16, 24))
TRUTH, PREDICTED = rng.integers(0, 4, (2, 3, 16, 24))


def test_uncertainties_beside_the_errors() -> None:
    figure = pictures.uncertainties(
        IMAGES, PREDICTED, {"entropy": DOUBT, "none": 0 * DOUBT}, TRUTH, names=list("abc")
    )
    top = figure.axes[:6]
    assert [ax.get_title() for ax in top[:4]] == ["slice", "segmentation", "truth", "errors"]
    assert top[4].get_title() == "entropy\n0 to 1"
    errors = figure.axes[6 + 3].images[0].get_array()
    np.testing.assert_array_equal(errors, TRUTH[1] != PREDICTED[1])
    drawn = np.asarray(figure.axes[4].images[0].get_array())
    brightest = np.unravel_index(drawn.sum(-1).argmax(), drawn.shape[:2])
    assert DOUBT[0][brightest] > 0.99
    assert np.asarray(figure.axes[5].images[0].get_array()).max() < 0.02  # black
    without = pictures.uncertainties(IMAGES, PREDICTED, {"entropy": DOUBT})
    assert len(without.axes) == 3 * 3


def test_counterfactuals_beside_the_truth() -> None:
    figure = pictures.counterfactuals(IMAGES, PREDICTED, {"healed": DOUBT}, IMAGES[::-1])
    assert [ax.get_title() for ax in figure.axes[:4]] == ["slice", "labels", "healed", "truth"]
    second = [np.asarray(ax.images[0].get_array()) for ax in figure.axes[4:8]]
    np.testing.assert_array_equal(second[1], overlay(IMAGES[1], PREDICTED[1]))
    np.testing.assert_array_equal(second[2], DOUBT[1])
    np.testing.assert_array_equal(second[3], IMAGES[1])


def test_drawn_lays_labels_over_the_columns_that_have_them() -> None:
    figure = pictures.drawn({"plain": IMAGES, "labels": IMAGES}, {"labels": TRUTH})
    plain, labels = (np.asarray(ax.images[0].get_array()) for ax in figure.axes[:2])
    np.testing.assert_array_equal(plain, IMAGES[0])
    np.testing.assert_array_equal(labels, overlay(IMAGES[0], TRUTH[0]))
    assert figure.legends
    assert not pictures.drawn({"plain": IMAGES}).legends


def test_preprocessing_shows_before_over_after() -> None:
    before = [1000 * IMAGES[0] - 1000, IMAGES[1], 255 * IMAGES[2, :, :9]]
    figure = pictures.preprocessing(before, IMAGES, names=list("abc"))
    assert [ax.get_title() for ax in figure.axes[:3]] == list("abc")
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), before[2])
    np.testing.assert_array_equal(figure.axes[5].images[0].get_array(), IMAGES[2])
    assert figure.axes[5].images[0].get_clim() == (0, 1)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="entropy has shape"):
        pictures.uncertainties(IMAGES, PREDICTED, {"entropy": DOUBT[:1]})
    with pytest.raises(ValueError, match="healed has shape"):
        pictures.counterfactuals(IMAGES, PREDICTED, {"healed": DOUBT[:, :3]})
    with pytest.raises(ValueError, match="3 slices but 1 names"):
        pictures.drawn({"a": IMAGES}, names=["a"])
    with pytest.raises(ValueError, match="2 slices before, 3 after"):
        pictures.preprocessing([IMAGES[0], IMAGES[1]], IMAGES, names=list("ab"))
