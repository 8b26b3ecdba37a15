"""Networks of the baselines: SegNet and nnU-Net's plain U-Net."""

from torch import Tensor, nn
from torchvision.models import vgg16_bn

from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.model.nn.encoder import GREY_MEAN, GREY_STD

__all__ = ["SegNet", "plain_unet"]


class _Normalised(nn.Module):
    """A network behind ImageNet's normalisation of grey values in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x - GREY_MEAN) / GREY_STD)


class SegNet(nn.Module):
    """SegNet (Badrinarayanan et al., TPAMI 2017): VGG16's convolutions and max-unpooling.

    The encoder is torchvision's VGG16-BN without its classifier, with random initial weights. The
    decoder mirrors it; each unpooling uses the indices of the pooling at the same level.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        widths: list[list[int]] = []
        stage: list[nn.Module] = []
        for block in list(vgg16_bn().features):
            if isinstance(block, nn.MaxPool2d):
                widths.append([m.out_channels for m in stage if isinstance(m, nn.Conv2d)])
                self.stages.append(nn.Sequential(*stage))
                stage = []
            elif isinstance(block, nn.Conv2d) and not stage and not widths:
                stage.append(nn.Conv2d(1, block.out_channels, 3, padding=1))  # for a grey slice
            else:
                stage.append(block)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.ups = nn.ModuleList()
        for level in range(len(widths) - 1, -1, -1):
            width, out = widths[level][0], widths[max(level - 1, 0)][-1]
            outs = [width] * (len(widths[level]) - 1) + [out]
            ins = [width, *outs[:-1]]
            self.ups.append(nn.Sequential(*(_conv(a, b) for a, b in zip(ins, outs, strict=True))))
        self.classify = nn.Conv2d(widths[0][0], len(LABELS), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of grey slices (N, 1, H, W); sides are multiples of 32."""
        indices = []
        h = (x - GREY_MEAN) / GREY_STD
        for stage in self.stages:
            h, index = self.pool(stage(h))
            indices.append(index)
        for up in self.ups:
            h = up(self.unpool(h, indices.pop()))
        return self.classify(h)


def _conv(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def plain_unet() -> nn.Module:
    """Build nnU-Net's 2D plain U-Net: instance norm, leaky ReLU, strided convolutions.

    Isensee et al., Nature Methods 2021, as MONAI's DynUNet; six stages of 32 to 512 channels and no
    deep supervision.
    """
    from monai.networks.nets import DynUNet

    stages = 6
    return _Normalised(
        DynUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=len(LABELS),
            kernel_size=[3] * stages,
            strides=[1] + [2] * (stages - 1),
            upsample_kernel_size=[2] * (stages - 1),
            filters=[min(32 * 2**i, 512) for i in range(stages)],
        )
    )
