from .labels import LABELS
from .model.distributions import Stitched
from .model.objective import negative_elbo
from .model.stitchnet import StitchNet
from .model.svae import SVAE
from .posterior import Answer, segment
from .prediction.segmentation import Segmentation
from .prediction.segmenter import Segmenter, load
from .presets import PRESETS, ModelConfig, Objective, Preset, preset

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
