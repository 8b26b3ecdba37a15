"""Training batches: two streams, labelled and unlabelled, augmented.

A batch is a function of its number and the seed alone. So whoever knows the number of the last
batch goes on as if never stopped; any number of worker processes makes the same batches; and
training processes share the work by each making its part of every batch.
"""

import signal
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from pyro_stitchnet.data.datasets.augment import (
    affine_augmentation,
    paste_lesions,
    strong_augmentation,
    weak_augmentation,
)
from pyro_stitchnet.data.datasets.slices import SliceSet, allowed_sets
from pyro_stitchnet.labels import ALL_LABELS

__all__ = ["Batch", "TwoStreams"]


class Batch(NamedTuple):
    """Slices and what is known of their labels.

    Attributes:
        x: grey values in [0, 1], float32 (N, H, W).
        allowed: the labels that each pixel may have, bool (N, H, W, K).
        strong: strongly augmented views of x, pixel by pixel in the same place, float32
            (V, N, H, W).
        names: what each slice is called.
    """

    x: Tensor
    allowed: Tensor
    strong: Tensor = torch.empty(0, 0, 0, 0)
    names: Sequence[str] = ()

    @property
    def unlabelled(self) -> Tensor:
        """Which slices have no annotation, bool (N,)."""
        return self.allowed.flatten(1).all(1)

    def annotated(self) -> "Batch":
        """The batch without its unlabelled slices; as it is where it has no others."""
        told = ~self.unlabelled
        if told.all() or not told.any():
            return self
        names = [name for name, kept in zip(self.names, told.tolist(), strict=False) if kept]
        strong = self.strong[:, told] if self.strong.numel() else self.strong
        return Batch(self.x[told], self.allowed[told], strong, names)

    def to(self, device: torch.device | str) -> "Batch":
        """The batch on another device."""
        tensors = (self.x, self.allowed, self.strong)
        x, allowed, strong = (part.to(device, non_blocking=True) for part in tensors)
        return Batch(x, allowed, strong, self.names)


class TwoStreams(TorchDataset[Batch]):
    """Batches by number, without end, the labelled slices first.

    Each stream goes through its slices in a new random order, again and again, so that an epoch
    of the small labelled set does not end one of the large unlabelled set. In the labelled one,
    slices with one label for every pixel take turns with the others, so that many of these do not
    crowd out a few of those.

    Args:
        labelled: slices with label sets, or None.
        unlabelled: slices taken without their labels, or None.
        per_batch: how many of each in a batch.
        seed: of the order and the augmentation.
        augment: whether to apply :func:`~pyro_stitchnet.data.datasets.augment.weak_augmentation`.
        affine: whether to apply :func:`~pyro_stitchnet.data.datasets.augment.affine_augmentation` in its
            place.
        paste: the share of annotated slices that get the lesions of another one, see
            :func:`~pyro_stitchnet.data.datasets.augment.paste_lesions`.
        strong_views: how many :func:`~pyro_stitchnet.data.datasets.augment.strong_augmentation` of each
            slice a batch holds.
        jitter: how much these change brightness and contrast.
        rank: number of this training process. Batches hold ``per_batch`` slices for each process,
            which takes those at ``rank``, ``rank + processes``, ... of each stream's part.
        processes: how many training processes there are.

    Raises:
        ValueError: a stream of which slices are wanted has none, or none are wanted at all, or
            ``rank`` is none of the processes.
    """

    def __init__(
        self,
        labelled: SliceSet | None,
        unlabelled: SliceSet | None,
        per_batch: tuple[int, int],
        *,
        seed: int = 0,
        augment: bool = True,
        affine: bool = False,
        paste: float = 0.0,
        strong_views: int = 0,
        jitter: float = 0.5,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if not 0 <= rank < processes:
            raise ValueError(f"rank must be between 0 and {processes - 1}, got {rank}")
        if not 0 <= paste <= 1:
            raise ValueError(f"paste must be between 0 and 1, got {paste}")
        if strong_views < 0:
            raise ValueError(f"a batch cannot hold {strong_views} strong views")
        self.groups: list[list[np.ndarray]] = []  # of each stream: what takes turns
        self.streams: list[tuple[SliceSet, int]] = []  # the labelled one is first, if wanted
        for name, slices, n in zip(
            ("labelled", "unlabelled"), (labelled, unlabelled), per_batch, strict=True
        ):
            if n < 0:
                raise ValueError(f"a batch cannot hold {n} {name} slices")
            if n and not slices:
                raise ValueError(f"a batch is to hold {n} {name} slices, but there are none")
            if n and slices:
                self.streams.append((slices, n))
                self.groups.append(_groups(slices) if name == "labelled" else [_all(slices)])
        if not self.streams:
            raise ValueError("a batch holds no slices: give labelled or unlabelled ones")
        self.told = per_batch[0]  # so many slices of a batch keep their labels
        self.seed, self.rank, self.processes = seed, rank, processes
        size = self.streams[0][0][0][0].shape[-1]
        self.weak: v2.Transform = v2.Identity()
        if augment:
            self.weak = affine_augmentation() if affine else weak_augmentation(size)
        self.paste = paste
        self.strong, self.strong_views = strong_augmentation(jitter), strong_views

    def __getitem__(self, number: int) -> Batch:
        """The batch of a number, from 0."""
        draws = [
            (stream, (number * n + i) * self.processes + self.rank)
            for stream, (_, n) in enumerate(self.streams)
            for i in range(n)
        ]
        slices = [self._slice(*draw, told=i < self.told) for i, draw in enumerate(draws)]
        views, sets = zip(*slices, strict=True)
        stacked = torch.stack(views, 1)  # (1 + V, N, H, W)
        names = [self.streams[stream][0].names[self._place(stream, draw)] for stream, draw in draws]
        return Batch(stacked[0], allowed_sets(torch.stack(sets)), stacked[1:], names)

    def batches(self, *, first: int = 0, workers: int = 0) -> Iterator[Batch]:
        """The batches one after another.

        Args:
            first: number of the batch to begin with: as many as were taken before.
            workers: processes that make batches ahead; 0 makes each when it is asked for.
        """
        loader = DataLoader(
            self,
            batch_size=None,  # they are batches already
            sampler=count(first),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_signals_to_the_parent,
            generator=torch.Generator(),  # else it draws from the global one
        )
        return iter(loader)

    def _place(self, stream: int, draw: int) -> int:
        """Where among a stream's slices the one of a draw is."""
        groups = self.groups[stream]
        group = groups[draw % len(groups)]
        turn, place = divmod(draw // len(groups), len(group))
        return int(group[_order(len(group), self.seed, stream, turn)[place]])

    def _slice(self, stream: int, draw: int, *, told: bool) -> tuple[Tensor, Tensor]:
        """The views (1 + V, H, W) and label sets (H, W) of a stream's draw."""
        slices, _ = self.streams[stream]
        image, sets = slices[self._place(stream, draw)]
        with torch.random.fork_rng(devices=[]):  # the transforms know no generator but the global
            torch.default_generator.manual_seed(_number(self.seed, stream, draw))
            weak, mask = self._weak(image, sets)
            if not told:
                mask = torch.full_like(mask, ALL_LABELS)
            if told and self.paste and torch.rand(()) < self.paste:
                other = int(torch.randint(len(slices), ()))
                weak, mask = paste_lesions(weak, mask, *self._weak(*slices[other]))
            views = [weak, *(self.strong(weak) for _ in range(self.strong_views))]
        return torch.cat(views).clamp(0, 1), mask  # blurs overshoot by rounding

    def _weak(self, image: Tensor, sets: Tensor) -> tuple[Tensor, Tensor]:
        """The weak view of a slice, (1, H, W), and its label sets, (H, W)."""
        view, mask = self.weak(tv_tensors.Image(image[None]), tv_tensors.Mask(sets))
        return view.as_subclass(Tensor), mask.as_subclass(Tensor)


def _all(slices: SliceSet) -> np.ndarray:
    return np.arange(len(slices))


def _groups(slices: SliceSet) -> list[np.ndarray]:
    """The slices with one label for every pixel, and the others, where there are both."""
    complete = np.asarray(slices.complete, dtype=bool)
    return [group for group in (np.flatnonzero(complete), np.flatnonzero(~complete)) if len(group)]


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C and schedulers reach every process, but the parent has a step to end and to save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=8)
def _order(length: int, seed: int, stream: int, turn: int) -> np.ndarray:
    """The order of a stream's slices in one turn through them."""
    return np.random.default_rng((seed, stream, turn)).permutation(length)


def _number(*parts: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
