"""StitchNet in Pyro: semi-supervised segmentation of lung CT by a deep generative model.

What it exports is listed in ``__init__.pyi`` and imported when first asked for: torch and Pyro take
seconds, which neither ``--help`` nor the workers of ``stitchnet prepare`` need to wait for.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = version("pyro-stitchnet")
