"""The SVAE alone: a generative model of CT slices without labels."""

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_stitchnet.model.config import ModelConfig
from pyro_stitchnet.model.label_terms import Unlabelled
from pyro_stitchnet.model.likelihoods import FAMILIES, check_likelihood
from pyro_stitchnet.model.memo import remembered
from pyro_stitchnet.model.nn.blocks import Head, start_as_identity
from pyro_stitchnet.model.nn.resize import enlarge
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.svae import SVAE, check_size, pixel_plates

__all__ = ["SliceVAE"]


class SliceVAE(nn.Module):
    """A hierarchical VAE of slices: z ~ p(z), then every pixel of x given z.

    It is the SVAE of the article without y: one style draws the whole slice. With
    ``shared_crush=False`` it is the ladder VAE (Sonderby et al., NeurIPS 2016).

    Attributes:
        config: the :class:`~pyro_stitchnet.model.config.ModelConfig` that it was built from.
        svae: the hierarchy of z.
    """

    classifier = None
    objective = Objective(labels=Unlabelled())
    """The objective by default."""

    def __init__(self, config: ModelConfig) -> None:
        """Build the networks.

        Raises:
            ValueError: the configuration has an unknown value.
            FileNotFoundError: its weights are missing.
        """
        super().__init__()
        check_likelihood(config.likelihood)
        if config.stitched:
            raise ValueError("stitched=True has labels; build a StitchNet")
        self.config = config
        self.svae = SVAE(config)
        self.memo = self.svae.memo
        self.head = Head(config.decoder_channels, config.head_channels, 2, config.norm)
        if config.identity_start:
            start_as_identity(self)

    def model(
        self,
        x: Tensor | None,
        allowed: Tensor | None = None,
        objective: Objective | None = None,
        *,
        shape: tuple[int, ...] | None = None,
    ) -> TorchDistribution:
        """p(z) p(x | z); arguments as for ``StitchNet.model``, without labels.

        Raises:
            ValueError: a size is not a multiple of 32 times ``downsampling``; the message has the
                nearest valid ones.
        """
        shape = tuple(x.shape) if x is not None else shape
        if shape is None:
            raise ValueError("model(None) draws slices: give their number and size as shape=")
        check_size(shape, self.config.downsampling)
        objective = objective or self.objective
        if not isinstance(objective.labels, Unlabelled):
            raise ValueError(f"labels {objective.labels.kind!r} need a StitchNet: this is the SVAE")
        slices, rows, columns = pixel_plates(shape)
        with slices:
            z1 = self.svae.model(shape, objective)
        picture = self.picture(z1)
        with slices, rows, columns:
            objective.labels.observe(x, picture, allowed)
        return picture

    def guide(
        self, x: Tensor, allowed: Tensor | None = None, objective: Objective | None = None
    ) -> Tensor:
        """q(z | x); returns the value of site z1."""
        check_size(tuple(x.shape), self.config.downsampling)
        slices, *_ = pixel_plates(tuple(x.shape))
        with slices:
            return self.svae.guide(x, objective or self.objective)

    @remembered(of="z")
    def picture(self, z1: Tensor, /) -> TorchDistribution:
        """p(x | z) of every pixel, batch shape (N, H, W)."""
        maps = enlarge(self.svae.run(self.head, self.svae.features(z1)), self.config.downsampling)
        maps = maps.float()
        return FAMILIES[self.config.likelihood](maps[:, 0], maps[:, 1])
