from ._queries import AtMean, Tempered, seeded
from .counterfactuals import (
    HEALED,
    Counterfactual,
    Pixels,
    counterfactual,
    edited,
    region,
)
from .evidence import (
    active_units,
    grey_check,
    likelihood_ratio,
    log_evidence,
    log_weights,
    unusual,
)
from .options import ReadOut, ReadOutOptions
from .samples import (
    Draws,
    between,
    from_prior,
    level_effects,
    redrawn,
    sample,
)
from .segmentation import Answer, probabilities, segment, style_gaps
from .uncertainties import Uncertainty, entropy, uncertainty

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
