"""Curves: the content of the figures, and their files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from pyro_stitchnet import figures

rng = np.random.default_rng(0)
IMAGES = rng.random((3, 16, 16))
TRUTH, PREDICTED = rng.integers(0, 4, (2, 3, 16, 16))


def titles(figure: Figure) -> list[str]:
    return [ax.get_title() or ax.get_title("left") for ax in figure.axes]


@pytest.fixture
def log() -> pd.DataFrame:
    steps = np.arange(0, 2000, 10)
    log = pd.DataFrame({"step": steps, "loss": 1 / (1 + steps), "elbo/log_px": -1.0})
    log["kl/z1"], log["kl/z2"] = 1e-1, 1e-5
    log["label_drop"] = 0.1
    log["validation/dice_ggo"] = np.where(steps % 500 == 0, 0.5, np.nan)
    log["validation/dice_consolidation"] = np.nan
    log["seconds"] = 1.0
    return log


def test_training_curves_draws_a_panel_for_each_group_present(log: pd.DataFrame) -> None:
    figure = figures.training_curves(log)
    loss, terms, kl, drop, validation = figure.axes
    assert titles(figure) == [
        "loss", "terms of the bound", "KL divergence of each level",
        "fall of log p(x) under a wrong label", "validation",
    ]  # fmt: skip
    assert terms.get_ylabel() == kl.get_ylabel() == "nats per pixel"
    assert [ax.get_yscale() for ax in figure.axes] == [
        "linear",
        "linear",
        "log",
        "linear",
        "linear",
    ]
    legend = terms.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["log p(x)"]
    assert loss.get_legend() is drop.get_legend() is None
    (line,) = validation.lines  # without the empty curve and the gaps of the other
    np.testing.assert_array_equal(line.get_xdata(), [0, 500, 1000, 1500])
    assert line.get_label() == "Dice GGO"
    raw, smooth = (np.asarray(line.get_ydata()) for line in drop.lines)
    np.testing.assert_allclose(smooth, raw)


def test_a_running_mean_is_drawn_over_a_long_curve(log: pd.DataFrame) -> None:
    log["label_drop"] = np.arange(len(log)) % 2
    (drop,) = figures.training_curves(log[["step", "label_drop"]]).axes
    raw, smooth = (np.asarray(line.get_ydata()) for line in drop.lines)
    np.testing.assert_array_equal(raw, log["label_drop"])
    assert len(smooth) == len(log)
    np.testing.assert_allclose(smooth[5:-5], 0.5)


def test_training_curves_accept_a_new_group_and_values_without_logarithm(
    log: pd.DataFrame, tmp_path: Path
) -> None:
    log["kl/z1"], log["kl/z2"] = 0.0, -1e-3  # without logarithm
    log["grad_norm/all_layers"] = 1.0
    figure = figures.training_curves(log.head(1))
    assert titles(figure)[-1] == "grad norm"
    figures.save_figure(figure, tmp_path / "curves.png")


def test_training_curves_refuses_an_empty_log(log: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match='no column "step"'):
        figures.training_curves(log.drop(columns="step"))
    with pytest.raises(ValueError, match="no curves"):
        figures.training_curves(log[["step", "seconds"]])


def test_save_figure_writes_a_png_and_no_pyplot_figure_is_left(
    log: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "figure.png"
    figures.save_figure(figures.segmentations(IMAGES, TRUTH, {"U-Net": PREDICTED}), path)
    figures.save_figure(figures.training_curves(log), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    assert pyplot.get_fignums() == []


def test_labelled_pixels_have_two_panels_in_plain_words(log: pd.DataFrame) -> None:
    log["labelled/ggo"], log["predicted/ggo"] = 0.1, 0.2
    columns = ["step", "labelled/ggo", "predicted/ggo"]
    figure = figures.training_curves(log[columns])
    assert titles(figure) == ["labelled pixels", "predicted share on labelled pixels"]


def test_methods_have_different_lines() -> None:
    names = [f"method {n}" for n in range(12)]
    points = pd.DataFrame(
        [(name, budget, 0.4, 0.3, 0.5) for name in names for budget in (5, 10)],
        columns=["line", "labels", "dice", "low", "high"],
    )
    figure = figures.label_efficiency(points)
    lines = [line for line in figure.axes[0].get_lines() if line.get_linestyle() != "None"]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(names)
