"""Training batches: two streams, labelled and unlabelled, augmented.

A batch depends on its number and the seed only. A run can therefore resume from the number of the
last batch, the number of worker processes does not change the batches, and each training process
makes its part of every batch.
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
    """Slices and their labels.

    Attributes:
        x: grey values in [0, 1], float32 (N, H, W).
        allowed: the labels that each pixel may have, bool (N, H, W, K).
        strong: strongly augmented views of x, in which no pixel moves, float32 (V, N, H, W).
        names: of the slices.
    """

    x: Tensor
    allowed: Tensor
    strong: Tensor = torch.empty(0, 0, 0, 0)
    names: Sequence[str] = ()

    @property
    def unlabelled(self) -> Tensor:
        """Whether each slice is unlabelled, bool (N,)."""
        return self.allowed.flatten(1).all(1)

    @property
    def ambiguous(self) -> Tensor:
        """Whether a pixel of each slice may have several labels, bool (N,)."""
        return (self.allowed.sum(-1) > 1).flatten(1).any(1)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on another device."""
        tensors = (self.x, self.allowed, self.strong)
        x, allowed, strong = (part.to(device, non_blocking=True) for part in tensors)
        return Batch(x, allowed, strong, self.names)


class TwoStreams(TorchDataset[Batch]):
    """An endless sequence of batches, labelled slices first.

    Each stream repeats its slices in a new random order, independently of the other stream, so
    that an epoch of the small labelled set does not end an epoch of the large unlabelled set. In
    the labelled stream, fully labelled slices alternate with partially labelled ones, so that a
    few of one kind are not lost among many of the other.

    Args:
        labelled: slices with label sets, or None.
        unlabelled: slices whose labels are ignored, or None.
        per_batch: number of labelled and of unlabelled slices in a batch.
        seed: of the order and the augmentation.
        augment: whether to apply :func:`~pyro_stitchnet.data.datasets.augment.weak_augmentation`.
        affine: whether to replace it by
            :func:`~pyro_stitchnet.data.datasets.augment.affine_augmentation`.
        paste: the share of labelled slices that receive the lesions of a fully labelled one, see
            :func:`~pyro_stitchnet.data.datasets.augment.paste_lesions`.
        strong_views: number of strong views of each slice, see
            :func:`~pyro_stitchnet.data.datasets.augment.strong_augmentation`.
        rank: number of this training process. Batches hold ``per_batch`` slices for each process,
            which takes those at ``rank``, ``rank + processes``, ... of each stream's part.
        processes: number of training processes.

    Raises:
        ValueError: a stream has no slices but ``per_batch`` above 0, both numbers of ``per_batch``
            are 0, or another argument is out of range.
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
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if not 0 <= rank < processes:
            raise ValueError(f"rank must be between 0 and {processes - 1}, got {rank}")
        if not 0 <= paste <= 1:
            raise ValueError(f"paste must be between 0 and 1, got {paste}")
        if strong_views < 0:
            raise ValueError(f"a batch cannot hold {strong_views} strong views")
        self.groups: list[list[np.ndarray]] = []  # of each stream: groups that alternate
        self.streams: list[tuple[SliceSet, int]] = []  # labelled first, if there are any
        for name, slices, n in zip(
            ("labelled", "unlabelled"), (labelled, unlabelled), per_batch, strict=True
        ):
            if n < 0:
                raise ValueError(f"a batch cannot hold {n} {name} slices")
            if n and not slices:
                raise ValueError(f"a batch must hold {n} {name} slices, but there are none")
            if n and slices:
                self.streams.append((slices, n))
                self.groups.append(_groups(slices) if name == "labelled" else [_all(slices)])
        if not self.streams:
            raise ValueError("a batch holds no slices: give labelled or unlabelled ones")
        self.labelled = per_batch[0]  # slices of a batch that keep their labels
        self.seed, self.rank, self.processes = seed, rank, processes
        size = self.streams[0][0][0][0].shape[-1]
        self.weak: v2.Transform = v2.Identity()
        if augment:
            self.weak = affine_augmentation() if affine else weak_augmentation(size)
        self.paste = paste
        self.strong, self.strong_views = strong_augmentation(), strong_views

    def __getitem__(self, number: int) -> Batch:
        """Make batch number ``number``, from 0."""
        draws = [
            (stream, (number * n + i) * self.processes + self.rank)
            for stream, (_, n) in enumerate(self.streams)
            for i in range(n)
        ]
        slices = [self._slice(*draw, labelled=i < self.labelled) for i, draw in enumerate(draws)]
        views, sets = zip(*slices, strict=True)
        stacked = torch.stack(views, 1)  # (1 + V, N, H, W)
        names = [self.streams[stream][0].names[self._place(stream, draw)] for stream, draw in draws]
        return Batch(stacked[0], allowed_sets(torch.stack(sets)), stacked[1:], names)

    def batches(self, *, first: int = 0, workers: int = 0) -> Iterator[Batch]:
        """Iterate over the batches.

        Args:
            first: number of the first batch.
            workers: processes that make batches ahead of time; 0 makes them in this process.
        """
        loader = DataLoader(
            self,
            batch_size=None,  # the items are batches
            sampler=count(first),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # otherwise it draws from the global generator
        )
        return iter(loader)

    def _place(self, stream: int, draw: int) -> int:
        """Return the index of a draw among the stream's slices."""
        groups = self.groups[stream]
        group = groups[draw % len(groups)]
        turn, place = divmod(draw // len(groups), len(group))
        return int(group[_order(len(group), self.seed, stream, turn)[place]])

    def _slice(self, stream: int, draw: int, *, labelled: bool) -> tuple[Tensor, Tensor]:
        """Return the views (1 + V, H, W) and label sets (H, W) of a stream's draw."""
        slices, _ = self.streams[stream]
        image, sets = slices[self._place(stream, draw)]
        with torch.random.fork_rng(devices=[]):  # transforms use the global generator
            torch.default_generator.manual_seed(_number(self.seed, stream, draw))
            weak, mask = self._weak(image, sets)
            if not labelled:
                mask = torch.full_like(mask, ALL_LABELS)
            if labelled and self.paste and torch.rand(()) < self.paste:
                donors = self.groups[stream][0]  # the fully labelled slices, if there are any
                other = int(donors[int(torch.randint(len(donors), ()))])
                weak, mask = paste_lesions(weak, mask, *self._weak(*slices[other]))
            views = [weak, *(self.strong(weak) for _ in range(self.strong_views))]
        return torch.cat(views).clamp(0, 1), mask  # rounding in the blur may leave [0, 1]

    def _weak(self, image: Tensor, sets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weak view of a slice, (1, H, W), and its label sets, (H, W)."""
        view, mask = self.weak(tv_tensors.Image(image[None]), tv_tensors.Mask(sets))
        return view.as_subclass(Tensor), mask.as_subclass(Tensor)


def _all(slices: SliceSet) -> np.ndarray:
    return np.arange(len(slices))


def _groups(slices: SliceSet) -> list[np.ndarray]:
    """Return the fully labelled slices and the others, without empty groups."""
    complete = np.asarray(slices.complete, dtype=bool)
    return [group for group in (np.flatnonzero(complete), np.flatnonzero(~complete)) if len(group)]


def _ignore_signals(_: int) -> None:
    """Ignore Ctrl-C and termination: the parent finishes its step and saves, then ends workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@lru_cache(maxsize=8)
def _order(length: int, seed: int, stream: int, turn: int) -> np.ndarray:
    """Return the order of a group's slices in one pass."""
    return np.random.default_rng((seed, stream, turn)).permutation(length)


def _number(*parts: int) -> int:
    """Combine several numbers into one seed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
