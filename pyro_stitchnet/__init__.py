"""StitchNet in Pyro: semi-supervised segmentation of lung CT by a deep generative model.

``__init__.pyi`` lists the exports. They are imported on first use, because torch and Pyro take
seconds, and neither ``stitchnet --help`` nor the workers of ``stitchnet prepare`` need them.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = version("pyro-stitchnet")
