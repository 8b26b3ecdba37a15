"""Queries of a trained model, one module per kind.

- :mod:`~pyro_stitchnet.posterior.segmentation`: the labels, by each read-out.
- :mod:`~pyro_stitchnet.posterior.samples`: styles and reconstructions, and slices of the prior.
- :mod:`~pyro_stitchnet.posterior.counterfactuals`: the slice with other tissue.
- :mod:`~pyro_stitchnet.posterior.uncertainties`: how sure the labels are.
- :mod:`~pyro_stitchnet.posterior.evidence`: how likely, and how unusual, the slice is.

``__init__.pyi`` lists the exports. They are imported on first use: the options of a command need
no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
