"""Slices in memory, and how a folder of pictures, masks and an index becomes them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from pyro_stitchnet.files import write_atomically
from pyro_stitchnet.labels import LABEL_RULES, LABELS

__all__ = ["ALL_LABELS", "Slices", "allowed_sets", "read_folder", "write_folder"]

ALL_LABELS = 2 ** len(LABELS) - 1


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

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.images)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Slices":
        """The slices at ``indices``."""
        index = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return Slices(
            self.images[index],
            self.label_sets[index],
            [self.names[i] for i in index],
            [self.patients[i] for i in index],
        )

    def without_patients(self, patients: Collection[str]) -> "Slices":
        """The slices of all other patients."""
        return self.take([i for i, patient in enumerate(self.patients) if patient not in patients])

    def __add__(self, other: "Slices") -> "Slices":
        """These slices and the others, of one size."""
        return Slices(
            torch.cat([self.images, other.images]),
            torch.cat([self.label_sets, other.label_sets]),
            [*self.names, *other.names],
            [*self.patients, *other.patients],
        )

    def without_labels(self) -> "Slices":
        """The same slices, every label allowed everywhere."""
        return Slices(
            self.images, torch.full_like(self.label_sets, ALL_LABELS), self.names, self.patients
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


def allowed_sets(label_sets: Tensor) -> Tensor:
    """Bits (...) uint8 as booleans (..., K)."""
    bits = torch.arange(len(LABELS), device=label_sets.device, dtype=torch.uint8)
    return (label_sets.unsqueeze(-1) >> bits & 1).bool()


def read_folder(folder: str | Path, size: int, *, rule: str | None = "full") -> Slices:
    """Read ``images/``, ``masks/`` and ``index.csv`` of a folder.

    Slices are padded to a centred square with black (labelled: background), resized
    to ``size`` (images with anti-aliasing, masks to the nearest) and scaled to [0, 1].

    Args:
        folder: holds ``index.csv`` with columns ``file`` and ``patient``, the pictures under
            ``images/`` and, where labelled, masks of the same names and sizes under ``masks/``.
        size: rows and columns of the result, a multiple of 32.
        rule: what the masks' values mean, a key of
            :data:`~pyro_stitchnet.labels.LABEL_RULES`; None leaves the masks unread: every label
            is allowed everywhere.

    Raises:
        FileNotFoundError: the folder, its index or a file of the index is missing.
        ValueError: a file is unreadable or does not fit; the message names it.
    """
    folder = Path(folder)
    if rule is not None and rule not in LABEL_RULES:
        raise ValueError(
            f"labelling rule {rule!r} is unknown; choose one of {', '.join(LABEL_RULES)}"
        )
    if size < 32 or size % 32:
        raise ValueError(f"size {size} is not a positive multiple of 32")
    index = _read_index(folder)
    images, label_sets = [], []
    for file in index["file"]:
        image = _open(folder / "images" / file)
        images.append(_resize(_pad_to_square(image), size, Image.Resampling.BILINEAR))
        if rule is not None:
            sets = _label_sets(folder / "masks" / file, image.shape, rule)
            label_sets.append(_resize(_pad_to_square(sets, fill=1), size, Image.Resampling.NEAREST))
        else:
            label_sets.append(np.full((size, size), ALL_LABELS, np.uint8))
    return Slices(
        torch.from_numpy(np.stack(images)).float() / 255,
        torch.from_numpy(np.stack(label_sets)),
        list(index["file"]),
        list(index["patient"]),
    )


def write_folder(slices: Slices, folder: str | Path) -> None:
    """Write slices as :func:`read_folder` reads them, with ``masks/`` if all pixels are labelled.

    Args:
        slices: what to write; names become file names and must end in ``.png``.
        folder: made where missing; must not hold an index yet. The index is written last.

    Raises:
        FileExistsError: the folder holds an index.
        ValueError: a name does not end in ``.png``.
    """
    folder = Path(folder)
    if (folder / "index.csv").exists():
        raise FileExistsError(f"{folder}: holds slices already; remove it or choose another folder")
    strange = [name for name in slices.names if Path(name).suffix != ".png"]
    if strange:
        raise ValueError(f"{strange[0]}: a slice's name must end in .png")
    pictures = {"images": (slices.images * 255).round().byte().numpy()}
    if not (slices.label_sets == ALL_LABELS).all():
        pictures["masks"] = slices.labels().byte().numpy()
    for part, stack in pictures.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, picture in zip(slices.names, stack, strict=True):
            Image.fromarray(picture).save(folder / part / name)
    index = pd.DataFrame({"file": slices.names, "patient": slices.patients})
    write_atomically(folder / "index.csv", index.to_csv(index=False))


def _read_index(folder: Path) -> pd.DataFrame:
    path = folder / "index.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: missing; a slice folder needs images/ (and masks/ where labelled) and an "
            "index.csv with the columns file and patient"
        )
    try:
        index = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:  # pandas' errors and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path}: not a readable table; save it as CSV ({error})") from error
    missing = [column for column in ("file", "patient") if column not in index]
    if missing:
        raise ValueError(
            f"{path}: no column {' nor '.join(missing)}; it needs file and patient (slices are "
            "split by patient)"
        )
    if index.empty:
        raise ValueError(f"{path}: lists no slices")
    if index[["file", "patient"]].fillna("").eq("").any(axis=None):
        raise ValueError(f"{path}: a row lacks its file or its patient")
    repeated = index["file"][index["file"].duplicated()]
    if len(repeated):
        raise ValueError(f"{path}: {repeated.iloc[0]} is listed twice")
    return index


def _open(path: Path, *, mask: bool = False) -> np.ndarray:
    """A grey picture as uint8 (H, W); of a mask with a palette, its indices."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing, though index.csv lists it")
    try:
        with Image.open(path) as picture:
            if picture.mode == "L" or (mask and picture.mode == "P"):
                return np.asarray(picture)
            if mask:
                raise ValueError(
                    f"{path}: a mask must be an 8-bit picture whose values are labels, "
                    f"not of mode {picture.mode}"
                )
            if picture.mode.startswith("I;16"):
                return np.round(np.asarray(picture) / 257).astype(np.uint8)
            if picture.mode in ("RGB", "RGBA", "P", "LA", "1"):
                return np.asarray(picture.convert("L"))
            raise ValueError(
                f"{path}: picture mode {picture.mode} has no fixed grey scale; "
                "save it as 8-bit or 16-bit grey"
            )
    except OSError as error:
        raise ValueError(f"{path}: not a readable picture ({error})") from error


def _label_sets(path: Path, shape: tuple[int, ...], rule: str) -> np.ndarray:
    """A mask as bits, uint8 (H, W)."""
    mask = _open(path, mask=True)
    if mask.shape != shape:
        raise ValueError(f"{path}: mask is {mask.shape}, its picture {shape}; they must match")
    meanings = LABEL_RULES[rule]
    strange = sorted(set(np.unique(mask)) - set(meanings))
    if strange:
        raise ValueError(
            f"{path}: mask holds {[int(v) for v in strange]}, but the rule {rule!r} knows "
            f"{sorted(meanings)}; choose another rule ({', '.join(LABEL_RULES)}) or mend the mask"
        )
    table = np.zeros(256, np.uint8)
    for value, labels in meanings.items():
        table[value] = sum(1 << label for label in labels)
    return table[mask]


def _pad_to_square(array: np.ndarray, fill: int = 0) -> np.ndarray:
    side = max(array.shape)
    before = [(side - length) // 2 for length in array.shape]
    pads = [(b, side - length - b) for b, length in zip(before, array.shape, strict=True)]
    return np.pad(array, pads, constant_values=fill)


def _resize(array: np.ndarray, size: int, resampling: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize((size, size), resampling))
