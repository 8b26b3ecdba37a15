"""StitchNet in Pyro: semi-supervised segmentation of lung CT by a deep generative model."""

from importlib.metadata import version

from pyro_stitchnet.distributions import Stitched
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.objective import Objective, negative_elbo
from pyro_stitchnet.posterior import Answer, segment
from pyro_stitchnet.presets import PRESETS, ModelConfig, Preset, preset
from pyro_stitchnet.stitchnet import StitchNet
from pyro_stitchnet.svae import SVAE

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
    "__version__",
    "negative_elbo",
    "preset",
    "segment",
]

__version__ = version("pyro-stitchnet")
