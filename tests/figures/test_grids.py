"""Grids of slices: their content, and the contrast of their colours."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from skimage.color import deltaE_ciede2000, rgb2lab

from pyro_stitchnet import figures
from pyro_stitchnet.figures.grids import sheet
from pyro_stitchnet.labels import CONSOLIDATION, GGO

rng = np.random.default_rng(0)
IMAGES = rng.random((3, 16, 16))
TRUTH, PREDICTED = rng.integers(0, 4, (2, 3, 16, 16))
STYLES = rng.random((3, 4, 16, 16))

# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as seen by each dichromat.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]]
    ),
}  # fmt: skip


def titles(figure: Figure) -> list[str]:
    return [ax.get_title() or ax.get_title("left") for ax in figure.axes]


def test_overlay_colours_the_lesions_and_nothing_else() -> None:
    image, labels = IMAGES[0], TRUTH[0]
    colour = figures.overlay(image, labels, alpha=0.25)
    assert colour.shape == (16, 16, 3)
    for label, name in ((GGO, "#20E640"), (CONSOLIDATION, "#2050FF")):
        expected = 0.75 * image[labels == label][:, None] + 0.25 * np.array(to_rgb(name))
        np.testing.assert_allclose(colour[labels == label], expected)
    plain = labels < GGO
    np.testing.assert_array_equal(colour[plain], np.repeat(image[plain][:, None], 3, axis=1))


def test_overlay_clips_without_changing_its_input() -> None:
    image = np.array([[-1.0, 2.0, 0.5]])
    colour = figures.overlay(image, np.array([[0, 1, 2]]))
    assert colour.min() >= 0
    assert colour.max() <= 1
    np.testing.assert_array_equal(image, [[-1.0, 2.0, 0.5]])


def test_overlay_refuses_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"must both be \(H, W\)"):
        figures.overlay(IMAGES[0], TRUTH[0, :3])
    with pytest.raises(ValueError, match="alpha is 2"):
        figures.overlay(IMAGES[0], TRUTH[0], alpha=2)


@pytest.mark.parametrize("sight", SIGHTS)
def test_the_colours_are_distinguishable_on_any_grey(sight: str) -> None:
    grey = np.linspace(0, 1, 21)[None]

    def seen(label: int) -> np.ndarray:
        rgb = figures.overlay(grey, np.full(grey.shape, label))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        linear = np.clip(linear @ SIGHTS[sight].T, 0, 1)
        gamma = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
        return rgb2lab(gamma)

    plain, ggo, consolidation = seen(0), seen(GGO), seen(CONSOLIDATION)
    for one, other in ((ggo, consolidation), (ggo, plain), (consolidation, plain)):
        assert deltaE_ciede2000(one, other).min() > 16.9


def test_segmentations_has_a_row_per_slice_and_a_column_per_method() -> None:
    figure = figures.segmentations(
        IMAGES, TRUTH, {"U-Net": PREDICTED, "StitchNet": TRUTH}, names=["a", "b", "c"]
    )
    assert isinstance(figure, Figure)
    assert titles(figure) == ["slice", "truth", "U-Net", "StitchNet"] + [""] * 8
    assert [ax.get_ylabel() for ax in figure.axes[::4]] == ["a", "b", "c"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["GGO", "consolidation"]
    second_row = [ax.images[0] for ax in figure.axes[4:8]]
    np.testing.assert_array_equal(second_row[0].get_array(), IMAGES[1])
    assert second_row[0].get_clim() == (0, 1)
    for drawn, labels in zip(second_row[1:], (TRUTH, PREDICTED, TRUTH), strict=True):
        np.testing.assert_array_equal(drawn.get_array(), figures.overlay(IMAGES[1], labels[1]))


def test_styles_has_the_four_styles_in_order() -> None:
    stitched = np.take_along_axis(STYLES, PREDICTED[:, None], axis=1)[:, 0]
    figure = figures.styles(IMAGES, TRUTH, PREDICTED, STYLES, stitched)
    assert [title.replace("\n", " ") for title in titles(figure)[:8]] == [
        "slice",
        "truth",
        "segmentation",
        "background style",
        "healthy style",
        "GGO style",
        "consolidation style",
        "stitched reconstruction",
    ]
    last_row = [np.asarray(ax.images[0].get_array()) for ax in figure.axes[16:]]
    np.testing.assert_array_equal(np.stack(last_row[3:7]), STYLES[2])
    np.testing.assert_array_equal(last_row[7], stitched[2])
    unlabelled = figures.styles(IMAGES, None, PREDICTED, STYLES, stitched)
    assert len(unlabelled.axes) == 3 * 7
    assert "truth" not in titles(unlabelled)


def test_image_columns_overlay_labels_where_given() -> None:
    figure = figures.image_columns({"plain": IMAGES, "labels": IMAGES}, {"labels": TRUTH})
    plain, labels = (np.asarray(ax.images[0].get_array()) for ax in figure.axes[:2])
    np.testing.assert_array_equal(plain, IMAGES[0])
    np.testing.assert_array_equal(labels, figures.overlay(IMAGES[0], TRUTH[0]))
    assert figure.legends
    assert not figures.image_columns({"plain": IMAGES}).legends
    with pytest.raises(ValueError, match="3 slices but 1 names"):
        figures.image_columns({"a": IMAGES}, names=["a"])


def test_grids_refuse_wrong_input() -> None:
    with pytest.raises(ValueError, match="U-Net has shape"):
        figures.segmentations(IMAGES, TRUTH, {"U-Net": PREDICTED[:1]})
    with pytest.raises(ValueError, match="3 slices but 1 names"):
        figures.segmentations(IMAGES, TRUTH, {}, names=["a"])
    with pytest.raises(ValueError, match=r"need \(3, 4, 16, 16\)"):
        figures.styles(IMAGES, None, TRUTH, STYLES[:, :3], IMAGES)
    with pytest.raises(ValueError, match="images has shape"):
        figures.segmentations(IMAGES[0], TRUTH[0], {})


def test_heat_rises_in_lightness_and_stops_at_its_top() -> None:
    colours = figures.heat(np.linspace(0, 2, 21), 1.0)
    assert colours.shape == (21, 3)
    lightness = rgb2lab(colours[None])[0, :, 0]
    assert (np.diff(lightness[:11]) > 0).all()
    assert np.ptp(lightness[10:]) == 0
    assert lightness[0] < 1


def test_a_sheet_has_a_title_per_image() -> None:
    cells = {f"cell {n}": IMAGES[n % 3] for n in range(7)}
    figure = sheet(cells, "all", ["a: 1", "b: 2"])
    assert titles(figure)[:7] == list(cells)
    assert len(figure.axes) == 10
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), IMAGES[1])
    assert figure.texts[-1].get_text() == "a: 1\nb: 2"
    with pytest.raises(ValueError, match="no image to draw"):
        sheet({}, "none")
