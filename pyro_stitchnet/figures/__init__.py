"""All figures, one module per kind.

Functions return a `matplotlib.figure.Figure`, which needs neither pyplot nor a display;
`save_figure` writes one.
"""

from pyro_stitchnet.figures.calibration import grey_histograms, reliability, selective
from pyro_stitchnet.figures.curves import label_efficiency, training_curves
from pyro_stitchnet.figures.files import as_png, save_figure
from pyro_stitchnet.figures.grids import (
    heat,
    image_columns,
    overlay,
    segmentations,
    styles,
)
from pyro_stitchnet.figures.posterior import counterfactuals, uncertainties

__all__ = [
    "as_png",
    "counterfactuals",
    "grey_histograms",
    "heat",
    "image_columns",
    "label_efficiency",
    "overlay",
    "reliability",
    "save_figure",
    "segmentations",
    "selective",
    "styles",
    "training_curves",
    "uncertainties",
]
