"""A U-Net over MobileNetV2: the classifier q(y | x), and the network of the baselines."""

from typing import Self

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.nn.encoder import GREY_MEAN, GREY_STD, load_imagenet_weights

__all__ = ["UNet"]


class UNet(nn.Module):
    """segmentation_models_pytorch's U-Net (Ronneberger et al. 2015) over MobileNetV2.

    An encoder with initial weights keeps the running statistics of its batch norm in training:
    those of a batch of a few slices from two sources would fit neither source.

    Attributes:
        pretrained: whether the encoder started from initial weights.
    """

    def __init__(self, weights: str | None = None) -> None:
        """Build the network.

        Args:
            weights: initial weights of the encoder: None, "imagenet" or a path, as for
                :class:`~pyro_stitchnet.model.config.ModelConfig`.

        Raises:
            FileNotFoundError: the weights are missing.
            ValueError: the weights are those of another network.
        """
        super().__init__()
        whole = smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, classes=len(LABELS))
        if weights is not None:
            state = dict(load_imagenet_weights(weights))
            stem = "0.0.weight"
            state[stem] = state[stem].sum(1, keepdim=True)  # one channel
            whole.encoder.features.load_state_dict(state)
        self.encoder, self.decoder = whole.encoder, whole.decoder
        self.head = whole.segmentation_head
        self.pretrained = weights is not None

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch norm with fixed statistics stays in evaluation mode."""
        super().train(mode)
        if self.pretrained:
            for module in self.encoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map slices (N, 1, H, W) to logits (N, K, H, W); sides must be multiples of 32."""
        return self.from_features(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """Map slices (N, 1, H, W) to the encoder's maps."""
        return self.encoder((x - GREY_MEAN) / GREY_STD)

    def from_features(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to logits."""
        return self.head(self.decoder(features))
