"""The U-Net over MobileNetV2: the guide's q(y | x), and the baselines' network."""

from typing import Self

import segmentation_models_pytorch as smp
from torch import Tensor, nn

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.nn.encoder import GREY_MEAN, GREY_STD, load_imagenet_weights

__all__ = ["UNet"]


class UNet(nn.Module):
    """segmentation_models_pytorch's U-Net (Ronneberger et al. 2015) over MobileNetV2.

    An encoder that starts from weights keeps their batch norm's averages in training: the
    statistics of a batch of few slices, of two sources, would be those of neither.
    """

    def __init__(self, weights: str | None = None) -> None:
        """Build it.

        Args:
            weights: the encoder's start: None, "imagenet" or a path, as for
                :class:`~pyro_stitchnet.presets.ModelConfig`.

        Raises:
            FileNotFoundError: the weights are not at hand.
            ValueError: they are another network's.
        """
        super().__init__()
        whole = smp.Unet("mobilenet_v2", encoder_weights=None, in_channels=1, classes=len(LABELS))
        if weights is not None:
            state = dict(load_imagenet_weights(weights))
            stem = "0.0.weight"
            state[stem] = state[stem].sum(1, keepdim=True)  # one channel: as if grey came thrice
            whole.encoder.features.load_state_dict(state)
        self.encoder, self.decoder = whole.encoder, whole.decoder
        self.head = whole.segmentation_head
        self._averages_fixed = weights is not None

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but what keeps its averages."""
        super().train(mode)
        if self._averages_fixed:
            for module in self.encoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Grey slices (N, 1, H, W) to logits (N, K, H, W); sides multiples of 32."""
        return self.from_features(self.features(x))

    def features(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps of grey slices."""
        return self.encoder((x - GREY_MEAN) / GREY_STD)

    def from_features(self, features: list[Tensor]) -> Tensor:
        """Logits of the encoder's maps."""
        return self.head(self.decoder(features))
