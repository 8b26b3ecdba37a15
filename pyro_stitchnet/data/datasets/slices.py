"""Slices in memory, and written as a folder of images, masks and an index."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from pyro_stitchnet.data.preprocessing.steps import to_bytes
from pyro_stitchnet.labels import GGO, LABELS
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["SliceSet", "Slices", "allowed_sets", "from_bytes", "write_folder"]


class SliceSet(Protocol):
    """Slices to train on, in memory or on disk."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each slice."""
        ...

    @property
    def complete(self) -> Sequence[bool]:
        """Whether each slice's rule separates all labels, and every pixel is labelled."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> tuple[Tensor, Tensor]:
        """Return grey values in [0, 1], float32 (S, S), and label sets as bits, uint8 (S, S)."""
        ...


@dataclass(frozen=True)
class Slices:
    """N square slices of one size.

    Attributes:
        images: grey values in [0, 1], float32 (N, S, S).
        label_sets: the labels that each pixel may have, bit k for label k, uint8 (N, S, S).
        names: of the slices.
        patients: the patient of each slice.
        complete: whether each slice's labelling rule separates all labels, and every pixel is
            labelled. By default, whether every pixel has one label; this also holds for a mask of
            infection on a slice without infection.

    Raises:
        ValueError: shapes differ, or grey values are out of [0, 1].
    """

    images: Tensor
    label_sets: Tensor
    names: Sequence[str]
    patients: Sequence[str]
    complete: Sequence[bool] = ()

    def __post_init__(self) -> None:
        """Check shapes and ranges."""
        n = len(self.images)
        if self.images.shape != self.label_sets.shape or self.images.ndim != 3:
            raise ValueError(
                f"images and label_sets must both be (N, S, S), got {tuple(self.images.shape)} "
                f"and {tuple(self.label_sets.shape)}"
            )
        if n and not ((self.images >= 0) & (self.images <= 1)).all():
            raise ValueError("images must be grey values in [0, 1]")
        if len(self.names) != n or len(self.patients) != n:
            raise ValueError(f"{n} slices need as many names and patients")
        if not self.complete:
            single = (self.label_sets & (self.label_sets - 1)) == 0
            object.__setattr__(self, "complete", single.flatten(1).all(1).tolist())
        if len(self.complete) != n:
            raise ValueError(f"{n} slices, but {len(self.complete)} values of complete")

    def __len__(self) -> int:
        """Return the number of slices."""
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return grey values (S, S) and label sets (S, S) of one slice."""
        return self.images[i], self.label_sets[i]

    def take(self, indices: Sequence[int] | np.ndarray) -> "Slices":
        """Return the slices at ``indices``."""
        index = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return Slices(
            self.images[index],
            self.label_sets[index],
            [self.names[i] for i in index],
            [self.patients[i] for i in index],
            [self.complete[i] for i in index],
        )

    def labels(self) -> Tensor:
        """Return the label map, int64 (N, S, S).

        Raises:
            ValueError: a pixel's set does not have exactly one label.
        """
        allowed = allowed_sets(self.label_sets)
        if not (allowed.sum(-1) == 1).all():
            name = self.names[int((allowed.sum(-1) != 1).flatten(1).any(1).nonzero()[0])]
            raise ValueError(
                f"{name}: not labelled with one label per pixel, so there is no truth to compare "
                "with; give slices whose masks follow the rule 'full'"
            )
        return allowed.int().argmax(-1)

    def infection(self) -> Tensor:
        """Return the map of infection: GGO for either lesion, else background, int64 (N, S, S).

        Raises:
            ValueError: a pixel's set contains a lesion and a label that is not a lesion.
        """
        allowed = allowed_sets(self.label_sets)
        infected = allowed[..., GGO:].any(-1)
        unclear = infected & allowed[..., :GGO].any(-1)
        if unclear.any():
            name = self.names[int(unclear.flatten(1).any(1).nonzero()[0])]
            raise ValueError(
                f"{name}: some of its pixels may or may not be a lesion, so there is no truth to "
                "compare with; give slices whose masks follow the rule 'full' or 'infection'"
            )
        return GGO * infected.long()


def allowed_sets(label_sets: Tensor) -> Tensor:
    """Return label sets, bits (...) uint8, as booleans (..., K).

    Examples:
        >>> allowed_sets(torch.tensor(12, dtype=torch.uint8)).tolist()  # GGO or consolidation
        [False, False, True, True]
    """
    bits = torch.arange(len(LABELS), device=label_sets.device, dtype=torch.uint8)
    return (label_sets.unsqueeze(-1) >> bits & 1).bool()


def from_bytes(stored: Tensor) -> Tensor:
    """Return grey values in [0, 1], float32, of the 256 levels that datasets store, uint8."""
    return stored / 255


def write_folder(slices: Slices, folder: str | Path, *, masks: bool = True) -> None:
    """Write slices in the layout of the source ``folder``; the index is written last.

    Args:
        slices: the slices; their names become file names and must end in ``.png``.
        folder: created if missing; must not hold an index.
        masks: whether to write the labels too.

    Raises:
        FileExistsError: the folder holds an index.
        ValueError: a name does not end in ``.png``, or a pixel has not exactly one label.
    """
    folder = Path(folder)
    if (folder / "index.csv").exists():
        raise FileExistsError(f"{folder}: holds slices already; remove it or choose another folder")
    wrong = [name for name in slices.names if Path(name).suffix != ".png"]
    if wrong:
        raise ValueError(f"{wrong[0]}: a slice's name must end in .png")
    files = {"images": to_bytes(slices.images.numpy())}
    if masks:
        files["masks"] = slices.labels().byte().numpy()
    for part, stack in files.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, values in zip(slices.names, stack, strict=True):
            Image.fromarray(values).save(folder / part / name)
    index = pd.DataFrame({"file": slices.names, "patient": slices.patients})
    write_atomically(folder / "index.csv", index.to_csv(index=False))
