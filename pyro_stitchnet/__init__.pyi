from .labels import LABELS
from .model.bound import Bound, bound
from .model.config import ModelConfig
from .model.distributions import Stitched
from .model.objective import Objective
from .model.stitchnet import StitchNet
from .model.svae import SVAE
from .posterior import Answer, ReadOutOptions, probabilities, segment
from .prediction.segmentation import Segmentation
from .prediction.segmenter import Segmenter, load
from .presets import PRESETS, Preset, preset

__all__ = [
    "LABELS",
    "PRESETS",
    "SVAE",
    "Answer",
    "Bound",
    "ModelConfig",
    "Objective",
    "Preset",
    "ReadOutOptions",
    "Segmentation",
    "Segmenter",
    "StitchNet",
    "Stitched",
    "bound",
    "load",
    "preset",
    "probabilities",
    "segment",
]

__version__: str
