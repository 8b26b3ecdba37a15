"""Denoising of slices without labels, before a U-Net learns the labels."""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional

from pyro_stitchnet.data.datasets.batches import Batch
from pyro_stitchnet.data.datasets.slices import SliceSet
from pyro_stitchnet.model.nn.unet import UNet
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.fit import fit
from pyro_stitchnet.training.learner import Learner, LossOutput

__all__ = ["Denoiser", "pretrain_unet"]

NOISE = 0.1  # standard deviation, in grey units


class Denoiser(Learner):
    """A U-Net that predicts the Gaussian noise that was added to a slice.

    An encoder that starts from ImageNet's weights keeps them, and only the decoder learns.
    Source: Brempong et al., Decoder denoising pretraining for semantic segmentation, TMLR 2022.
    """

    uses_labels = False

    def __init__(self, network: UNet) -> None:
        """Take the network, shared with the caller; its last layer is replaced here."""
        super().__init__()
        self.network = network
        last = network.head[0]
        self.head = nn.Conv2d(last.in_channels, 1, last.kernel_size, padding=last.padding)
        self.encoder_fixed = network.pretrained

    def loss(self, batch: Batch, step: int) -> LossOutput:
        """Return the mean squared error of the noise, in units of its variance."""
        x = batch.x.unsqueeze(1)
        noise = torch.randn_like(x)
        with torch.no_grad() if self.encoder_fixed else nullcontext():
            features = self.network.features(x + NOISE * noise)
        predicted = self.head(self.network.decoder(features)).float()
        return LossOutput(functional.mse_loss(predicted, noise))


def pretrain_unet(network: UNet, slices: Mapping[str, SliceSet], config: TrainConfig) -> None:
    """Train a U-Net to denoise slices; its last layer keeps its weights.

    Args:
        network: its other weights are the start, and change.
        slices: of which only the "unlabelled" ones are used.
        config: as for :func:`~pyro_stitchnet.training.fit.fit`.

    Raises:
        ValueError: there are no unlabelled slices.
    """
    fit(Denoiser(network), slices, config)
