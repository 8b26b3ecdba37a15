"""Queries of a trained model, one module per kind.

- :mod:`~pyro_stitchnet.posterior.segmentation`: the labels, by each read-out.
- :mod:`~pyro_stitchnet.posterior.samples`: styles and reconstructions, and slices of the prior.
- :mod:`~pyro_stitchnet.posterior.counterfactuals`: the slice with other tissue.
- :mod:`~pyro_stitchnet.posterior.uncertainties`: how sure the labels are.
- :mod:`~pyro_stitchnet.posterior.evidence`: how likely, and how unusual, the slice is.
"""

from pyro_stitchnet.posterior._queries import AtMean, Tempered, seeded
from pyro_stitchnet.posterior.counterfactuals import (
    HEALED,
    Counterfactual,
    Pixels,
    counterfactual,
    edited,
    region,
)
from pyro_stitchnet.posterior.evidence import (
    active_units,
    grey_check,
    likelihood_ratio,
    log_evidence,
    log_weights,
    unusual,
)
from pyro_stitchnet.posterior.options import ReadOut, ReadOutOptions
from pyro_stitchnet.posterior.samples import (
    Draws,
    between,
    from_prior,
    level_effects,
    redrawn,
    sample,
)
from pyro_stitchnet.posterior.segmentation import Answer, probabilities, segment, style_gaps
from pyro_stitchnet.posterior.uncertainties import Uncertainty, entropy, uncertainty

__all__ = [
    "HEALED",
    "Answer",
    "AtMean",
    "Counterfactual",
    "Draws",
    "Pixels",
    "ReadOut",
    "ReadOutOptions",
    "Tempered",
    "Uncertainty",
    "active_units",
    "between",
    "counterfactual",
    "edited",
    "entropy",
    "from_prior",
    "grey_check",
    "level_effects",
    "likelihood_ratio",
    "log_evidence",
    "log_weights",
    "probabilities",
    "redrawn",
    "region",
    "sample",
    "seeded",
    "segment",
    "style_gaps",
    "uncertainty",
    "unusual",
]
