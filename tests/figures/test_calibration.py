"""Reliability, selection and grey values: the figures show the values of the tables."""

import numpy as np
import pandas as pd
import pytest

from pyro_stitchnet import figures

BINS = pd.DataFrame(
    {
        "lesion": ["GGO"] * 3 + ["consolidation"] * 3,
        "pixels": [10, 0, 30, 5, 5, 0],
        "probability": [0.1, np.nan, 0.9, 0.2, 0.5, np.nan],
        "frequency": [0.2, np.nan, 0.8, 0.3, 0.4, np.nan],
    }
)


def test_reliability_has_a_panel_per_lesion_without_empty_bins() -> None:
    figure = figures.reliability({"before": BINS, "after": BINS})
    ggo, consolidation = figure.axes
    assert (ggo.get_title(), consolidation.get_title()) == ("GGO", "consolidation")
    diagonal, before, _ = ggo.lines
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(before.get_xydata(), [[0.1, 0.2], [0.9, 0.8]])
    legend = ggo.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["before", "after"]


def test_coverage_falls_from_left_to_right() -> None:
    table = pd.DataFrame({"coverage": [1.0, 0.8], "dice": [0.5, 0.6], "errors": [0.1, 0.0]})
    (ax,) = figures.selective({"entropy": table}).axes
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 0.5], [0.8, 0.6]])
    assert ax.xaxis_inverted()


def test_grey_histograms_show_observed_values_in_the_band_of_samples() -> None:
    table = pd.DataFrame(
        {
            "label": ["healthy"] * 2 + ["ggo"] * 2,
            "grey": [0.25, 0.75] * 2,
            "observed": [0.9, 0.1, 0.4, 0.6],
            "drawn": 0.5,
            "low": 0.3,
            "high": 0.7,
        }
    )
    figure = figures.grey_histograms(table)
    assert [ax.get_title() for ax in figure.axes] == ["healthy", "GGO"]
    sampled, observed = figure.axes[1].lines
    np.testing.assert_array_equal(observed.get_ydata(), [0.4, 0.6])
    np.testing.assert_array_equal(sampled.get_ydata(), [0.5, 0.5])
    (band,) = figure.axes[1].collections
    assert band.get_datalim(figure.axes[1].transData).ymax == pytest.approx(0.7)


def test_an_empty_mapping_is_refused() -> None:
    for draw in (figures.reliability, figures.selective):
        with pytest.raises(ValueError, match="no table to draw"):
            draw({})
