"""Every figure, a module for each kind.

Nothing here touches pyplot: every function returns a `matplotlib.figure.Figure`, which needs no
display and goes when its last reference does. `save_figure` writes one.
"""

from pyro_stitchnet.figures.answers import counterfactuals, drawn, preprocessing, uncertainties
from pyro_stitchnet.figures.curves import label_efficiency, training_curves
from pyro_stitchnet.figures.files import as_png, save_figure
from pyro_stitchnet.figures.grids import COLOURS, heat, overlay, segmentations, styles
from pyro_stitchnet.figures.trust import grey_histograms, reliability, selective

__all__ = [
    "COLOURS",
    "as_png",
    "counterfactuals",
    "drawn",
    "grey_histograms",
    "heat",
    "label_efficiency",
    "overlay",
    "preprocessing",
    "reliability",
    "save_figure",
    "segmentations",
    "selective",
    "styles",
    "training_curves",
    "uncertainties",
]
