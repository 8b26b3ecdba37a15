"""Random augmentation of a slice and its mask, drawn from torch's global generator."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pyro_stitchnet.labels import BACKGROUND, LESIONS

__all__ = [
    "affine_augmentation",
    "paste_lesions",
    "random_box",
    "strong_augmentation",
    "weak_augmentation",
]

BACKGROUND_BIT = 1 << BACKGROUND
LESION_BITS = sum(1 << label for label in LESIONS)
BOX_SIDES = 0.2, 0.7


def weak_augmentation(size: int) -> v2.Transform:
    """Return the augmentation of the reference code.

    Crop to 0.8 of the side and resize back, vertical flip, quarter turns (each p .5). An image and
    its mask are transformed together.

    Args:
        size: rows and columns of a slice.
    """
    quarter_turns: list[v2.Transform] = [
        v2.RandomRotation((angle, angle)) for angle in (90, 180, 270)
    ]
    return v2.Compose(
        [
            v2.RandomApply([_CropAndResize(size)], p=0.5),
            v2.RandomVerticalFlip(0.5),
            v2.RandomApply([v2.RandomChoice([v2.Identity(), *quarter_turns])], p=0.5),
        ]
    )


def affine_augmentation() -> v2.Transform:
    """Return flips, random affine transforms and gamma, for long runs on few slices.

    Rotation by any angle, scaling by .75 to 1.35, shear of up to 8 degrees, shifts of up to 6 %
    (together p .85). An image and its mask are transformed together; pixels from outside are black
    and background. After nnU-Net (Isensee et al., Nature Methods 2021).
    """
    affine = v2.RandomAffine(
        180,
        translate=(0.06, 0.06),
        scale=(0.75, 1.35),
        shear=(-8, 8, -8, 8),
        interpolation=v2.InterpolationMode.BILINEAR,
        fill={tv_tensors.Image: 0.0, tv_tensors.Mask: BACKGROUND_BIT},
    )
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomVerticalFlip(0.5),
            v2.RandomApply([affine], p=0.85),
            v2.RandomApply([_Gamma()], p=0.5),
        ]
    )


def strong_augmentation(jitter: float = 0.5) -> v2.Transform:
    """Return changes of brightness and contrast (p .8) and blur (p .5), as in UniMatch.

    No pixel moves, so labels of a weak view hold for the strong view made from it.

    Args:
        jitter: the largest relative change of brightness and of contrast, 0 to 1. Density
            separates ground glass from consolidation in CT, so large changes remove information.

    Source: Yang et al., Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic
    Segmentation (UniMatch), CVPR 2023; its colours are left out.

    Raises:
        ValueError: ``jitter`` is out of range.
    """
    if not 0 <= jitter <= 1:
        raise ValueError(f"jitter must be between 0 and 1, got {jitter}")
    return v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(brightness=jitter, contrast=jitter)], p=0.8),
            v2.RandomApply([v2.GaussianBlur(kernel_size=9, sigma=(0.1, 2.0))], p=0.5),
        ]
    )


def paste_lesions(
    image: Tensor, sets: Tensor, other: Tensor, other_sets: Tensor
) -> tuple[Tensor, Tensor]:
    """Paste the lesions of another slice into the lung of this one.

    Copy-paste (Ghiasi et al., CVPR 2021), restricted by anatomy: a pixel is pasted, with its grey
    value and labels, where the other slice is lesion and this one is lung.

    Args:
        image: grey values (..., H, W).
        sets: label sets of the slice, as bits, (..., H, W).
        other: grey values of the slice with the lesions.
        other_sets: its label sets.

    Returns:
        Grey values and label sets, (..., H, W) each.
    """
    lung = (sets & BACKGROUND_BIT) == 0
    lesion = (other_sets & ~LESION_BITS) == 0
    pasted = lung & lesion
    return torch.where(pasted, other, image), torch.where(pasted, other_sets, sets)


def random_box(shape: Sequence[int]) -> Tensor:
    """Draw a box of CutMix (Yun et al., ICCV 2019), .2 to .7 of each side; bool (H, W)."""
    low, high = BOX_SIDES
    height, width = (int(side * (low + (high - low) * torch.rand(()))) for side in shape)
    top = int(torch.randint(shape[0] - height + 1, ()))
    left = int(torch.randint(shape[1] - width + 1, ()))
    box = torch.zeros(*shape, dtype=torch.bool)
    box[top : top + height, left : left + width] = True
    return box


class _Gamma(v2.Transform):
    """Raise grey values in [0, 1] to a power of 1 / 1.3 to 1.3, and scale them by 0.9 to 1.1."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, float]:
        power, factor = (2 * torch.rand(2) - 1).tolist()
        return {"power": 1.3**power, "factor": 1 + 0.1 * factor}

    def transform(self, inpt: Any, params: dict[str, float]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        changed = (inpt.as_subclass(Tensor) ** params["power"] * params["factor"]).clamp(0, 1)
        return tv_tensors.wrap(changed, like=inpt)


class _CropAndResize(v2.Transform):
    """A random crop to 0.8 of the side, resized back.

    torchvision's own shifts masks a little: its ``nearest`` does not align pixel centres.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.cut = size, int(0.8 * size)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        top, left = torch.randint(self.size - self.cut + 1, (2,)).tolist()
        return {"top": top, "left": left, "height": self.cut, "width": self.cut}

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        part = functional.crop(inpt, **params).as_subclass(Tensor)
        mask = isinstance(inpt, tv_tensors.Mask)
        mode = v2.InterpolationMode.NEAREST_EXACT if mask else v2.InterpolationMode.BILINEAR
        whole = functional.resize(part[None], [self.size, self.size], interpolation=mode)
        return tv_tensors.wrap(whole[0], like=inpt)
