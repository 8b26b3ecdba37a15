from .distributions import Stitched
from .labels import LABELS
from .objective import negative_elbo
from .posterior import Answer, segment
from .prediction.segmentation import Segmentation
from .prediction.segmenter import Segmenter, load
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
    "Segmentation",
    "Segmenter",
    "StitchNet",
    "Stitched",
    "load",
    "negative_elbo",
    "preset",
    "segment",
]

__version__: str
