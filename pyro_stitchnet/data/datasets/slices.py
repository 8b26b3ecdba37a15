"""Slices in memory, and how they become a folder of pictures, masks and an index."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from pyro_stitchnet.labels import GGO, LABELS
from pyro_stitchnet.runtime.files import write_atomically

__all__ = ["SliceSet", "Slices", "allowed_sets", "write_folder"]


class SliceSet(Protocol):
    """Slices to train on, in memory or on disk."""

    @property
    def names(self) -> Sequence[str]:
        """What to call each slice."""
        ...

    @property
    def complete(self) -> Sequence[bool]:
        """Whether every pixel of each slice has one label."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> tuple[Tensor, Tensor]:
        """Grey values in [0, 1], float32 (S, S), and label sets, a bit a label, uint8 (S, S)."""
        ...


@dataclass(frozen=True)
class Slices:
    """N square slices of one size.

    Attributes:
        images: grey values in [0, 1], float32 (N, S, S).
        label_sets: the labels that each pixel may have, a bit a label, uint8 (N, S, S).
        names: what to call each slice.
        patients: whose slice it is; splits never part a patient.
    """

    images: Tensor
    label_sets: Tensor
    names: Sequence[str]
    patients: Sequence[str]

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
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

    @property
    def complete(self) -> Sequence[bool]:
        """Whether every pixel of each slice has one label."""
        single = (self.label_sets & (self.label_sets - 1)) == 0
        return list(single.flatten(1).all(1).tolist())

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Grey values (S, S) and label sets (S, S) of one slice."""
        return self.images[i], self.label_sets[i]

    def take(self, indices: Sequence[int] | np.ndarray) -> "Slices":
        """The slices at ``indices``."""
        index = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return Slices(
            self.images[index],
            self.label_sets[index],
            [self.names[i] for i in index],
            [self.patients[i] for i in index],
        )

    def labels(self) -> Tensor:
        """The label map, int64 (N, S, S).

        Raises:
            ValueError: some pixel's set holds more than one label.
        """
        allowed = allowed_sets(self.label_sets)
        if not (allowed.sum(-1) == 1).all():
            which = self.names[int((allowed.sum(-1) != 1).flatten(1).any(1).nonzero()[0])]
            raise ValueError(
                f"{which}: not labelled with one label a pixel, so there is no truth to compare "
                "with; give slices whose masks follow the rule 'full'"
            )
        return allowed.int().argmax(-1)

    def infection(self) -> Tensor:
        """The label map with GGO for either lesion and background for the rest, int64 (N, S, S).

        Raises:
            ValueError: some pixel's set does not tell whether there is a lesion.
        """
        allowed = allowed_sets(self.label_sets)
        infected = allowed[..., GGO:].any(-1)
        unclear = infected & allowed[..., :GGO].any(-1)
        if unclear.any():
            which = self.names[int(unclear.flatten(1).any(1).nonzero()[0])]
            raise ValueError(
                f"{which}: some of its pixels may or may not be a lesion, so there is no truth to "
                "compare with; give slices whose masks follow the rule 'full' or 'infection'"
            )
        return GGO * infected.long()


def allowed_sets(label_sets: Tensor) -> Tensor:
    """Bits (...) uint8 as booleans (..., K).

    Examples:
        >>> allowed_sets(torch.tensor(12, dtype=torch.uint8)).tolist()  # GGO or consolidation
        [False, False, True, True]
    """
    bits = torch.arange(len(LABELS), device=label_sets.device, dtype=torch.uint8)
    return (label_sets.unsqueeze(-1) >> bits & 1).bool()


def write_folder(slices: Slices, folder: str | Path, *, masks: bool = True) -> None:
    """Write slices in the layout of the source ``folder``.

    Args:
        slices: what to write; names become file names and must end in ``.png``.
        folder: made where missing; must not hold an index yet. The index is written last.
        masks: write the labels too.

    Raises:
        FileExistsError: the folder holds an index.
        ValueError: a name does not end in ``.png``, or a pixel has not one label.
    """
    folder = Path(folder)
    if (folder / "index.csv").exists():
        raise FileExistsError(f"{folder}: holds slices already; remove it or choose another folder")
    strange = [name for name in slices.names if Path(name).suffix != ".png"]
    if strange:
        raise ValueError(f"{strange[0]}: a slice's name must end in .png")
    pictures = {"images": (slices.images * 255).round().byte().numpy()}
    if masks:
        pictures["masks"] = slices.labels().byte().numpy()
    for part, stack in pictures.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, picture in zip(slices.names, stack, strict=True):
            Image.fromarray(picture).save(folder / part / name)
    index = pd.DataFrame({"file": slices.names, "patient": slices.patients})
    write_atomically(folder / "index.csv", index.to_csv(index=False))
