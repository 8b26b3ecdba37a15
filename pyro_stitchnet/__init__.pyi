from .distributions import Stitched
from .labels import LABELS
from .objective import negative_elbo
from .posterior import Answer, segment
from .presets import PRESETS, ModelConfig, Objective, Preset, preset
from .stitchnet import StitchNet
from .svae import SVAE

__all__ = [
    "LABELS",
    "PRESETS",
    "SVAE",
    "Answer",
    "ModelConfig",
    "Objective",
    "Preset",
    "StitchNet",
    "Stitched",
    "negative_elbo",
    "preset",
    "segment",
]

__version__: str
