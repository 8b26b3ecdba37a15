"""Training batches: two streams, labelled and unlabelled, augmented."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pyro_stitchnet.data.slices import ALL_LABELS, SliceSet, allowed_sets

__all__ = ["Batch", "augmentation", "two_streams"]


class Batch(NamedTuple):
    """Slices and what is known of their labels.

    Attributes:
        x: grey values in [0, 1], float32 (N, H, W).
        allowed: the labels that each pixel may have, bool (N, H, W, K).
    """

    x: Tensor
    allowed: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        return Batch(self.x.to(device), self.allowed.to(device))


def augmentation(size: int) -> v2.Transform:
    """The reference code's: crop to 0.8 and resize back, vertical flip (each p .5), quarter turns.

    Draws from torch's global generator.
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


class _CropAndResize(v2.Transform):
    """A random crop to 0.8 of the side, resized back; torchvision's own shifts the mask a little.

    It resizes masks with ``nearest``, whose pixels are not centred as an image's are.
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
        way = v2.InterpolationMode.NEAREST_EXACT if mask else v2.InterpolationMode.BILINEAR
        whole = functional.resize(part[None], [self.size, self.size], interpolation=way)
        return tv_tensors.wrap(whole[0], like=inpt)


def two_streams(
    labelled: SliceSet | None,
    unlabelled: SliceSet | None,
    per_batch: tuple[int, int],
    *,
    seed: int = 0,
    augment: bool = True,
) -> Iterator[Batch]:
    """Endless batches, the labelled slices first.

    Each stream goes through its slices in a new random order, again and again, so that an epoch
    of the small labelled set does not end one of the large unlabelled set.

    Args:
        labelled: slices with label sets, or None.
        unlabelled: slices taken without their labels, or None.
        per_batch: how many of each in a batch.
        seed: of the order. Augmentation draws from torch's global generator.
        augment: whether to apply :func:`augmentation`.

    Raises:
        ValueError: a stream of which slices are wanted has none, or none are wanted at all.
    """
    streams: list[tuple[SliceSet, bool, Iterator[list[int]]]] = []
    for name, slices, n in zip(
        ("labelled", "unlabelled"), (labelled, unlabelled), per_batch, strict=True
    ):
        if n < 0:
            raise ValueError(f"a batch cannot hold {n} {name} slices")
        if n and not slices:
            raise ValueError(f"a batch is to hold {n} {name} slices, but there are none")
        if n and slices:
            order = _shuffled(len(slices), n, seed + len(streams))
            streams.append((slices, name == "labelled", order))
    if not streams:
        raise ValueError("a batch holds no slices: give labelled or unlabelled ones")
    return _batches(streams, augment)


def _batches(
    streams: list[tuple[SliceSet, bool, Iterator[list[int]]]], augment: bool
) -> Iterator[Batch]:
    size = streams[0][0][0][0].shape[-1]
    transform = augmentation(size) if augment else v2.Identity()
    while True:
        pairs = []
        for slices, told, order in streams:
            for i in next(order):
                image, sets = slices[i]
                known = sets if told else torch.full_like(sets, ALL_LABELS)
                pairs.append(transform(tv_tensors.Image(image[None]), tv_tensors.Mask(known)))
        x = torch.stack([image.as_subclass(Tensor)[0] for image, _ in pairs])
        sets = torch.stack([mask.as_subclass(Tensor) for _, mask in pairs])
        yield Batch(x.clamp(0, 1), allowed_sets(sets))


def _shuffled(length: int, n: int, seed: int) -> Iterator[list[int]]:
    """Endless groups of ``n`` indices, each index once a round."""
    generator = torch.Generator().manual_seed(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < n:
            waiting += torch.randperm(length, generator=generator).tolist()
        yield waiting[:n]
        waiting = waiting[n:]
