"""Training of a StitchNet's SVAE on slices without labels, before the labels."""

from collections.abc import Mapping
from dataclasses import replace

from pyro_stitchnet.data.datasets.slices import SliceSet
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.fit import fit
from pyro_stitchnet.training.svae_learner import SliceVAELearner

__all__ = ["pretrain"]


def pretrain(net: StitchNet, slices: Mapping[str, SliceSet], config: TrainConfig) -> None:
    """Train the SVAE of a StitchNet alone, as a model of slices without labels.

    The heads of labels and styles keep their weights. The objective is that of the preset "svae".

    Args:
        net: the model; its SVAE's weights are the start, and change.
        slices: of which only the "unlabelled" ones are used.
        config: as for :func:`~pyro_stitchnet.training.fit.fit`.

    Raises:
        ValueError: there are no unlabelled slices.
    """
    alone = SliceVAE(
        replace(
            net.config,
            weights=None,
            stitched=False,
            likelihood="discretised-logistic",
            style_pool=1,
            classifier=False,
            anchored=False,
        )
    )
    alone.svae = net.svae
    alone.memo = net.memo
    fit(SliceVAELearner(alone, preset("svae").objective), slices, config)
