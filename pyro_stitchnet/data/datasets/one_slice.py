"""One slice to ask a model about, from a prepared dataset or from a scan's file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.preprocessing.steps import Preprocessing, full_scale, window
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.labels import ALL_LABELS

__all__ = ["OneSlice", "read_slice"]


@dataclass(frozen=True)
class OneSlice:
    """A slice and what is known of it.

    Attributes:
        image: grey values in [0, 1], float32 (H, W).
        label_sets: the labels that each pixel may have, a bit a label, uint8 (H, W).
        name: what to call it.
    """

    image: Tensor
    label_sets: Tensor
    name: str

    @property
    def truth(self) -> Tensor | None:
        """The label map, int64 (H, W), where every pixel has one label."""
        single = (self.label_sets & (self.label_sets - 1)) == 0
        if not single.all():
            return None
        return self.label_sets.float().log2().round().long()


def read_slice(
    path: Path, number: int | None = None, preprocessing: Preprocessing | None = None
) -> OneSlice:
    """Read one slice.

    Args:
        path: a prepared dataset, or what :func:`~pyro_stitchnet.data.scans.readers.read_volume` reads.
        number: which slice of it, from 0 (of a scan, from the feet); may be left out where there
            is only one.
        preprocessing: steps from a scan to a slice, those of the model's own dataset; None takes
            the slice as it is, prepared already. A prepared dataset needs none.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: it is unreadable, has no such slice, or the slice shows too little lung.
    """
    if (path / "dataset.json").is_file():
        dataset = Dataset(path)
        row = _chosen(path, number, len(dataset))
        return OneSlice(*dataset[row], dataset.names[row])
    volume = read_volume(path)
    slices = volume.axial()
    row = _chosen(path, number, len(slices))
    name = path.name if len(slices) == 1 else f"{path.name}, slice {row}"
    if preprocessing is None:
        if volume.hounsfield:
            raise ValueError(
                f"{path}: holds Hounsfield units, so it is not prepared yet; leave out --prepared"
            )
        image = window(slices[row], *full_scale(slices[row].min(), slices[row].max()))
    else:
        unlabelled = np.full(volume.voxels.shape, ALL_LABELS, np.uint8)
        ready = (part for part in preprocessing(volume, unlabelled) if part.index == row)
        found = next(ready, None)
        if found is None:
            raise ValueError(
                f"{path}: slice {row} shows too little lung; choose another --slice, or give "
                "--prepared if it is cropped to the lungs already"
            )
        image = found.image
    sets = torch.full(image.shape, ALL_LABELS, dtype=torch.uint8)
    return OneSlice(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)), sets, name)


def _chosen(path: Path, number: int | None, slices: int) -> int:
    if number is None and slices == 1:
        return 0
    if number is None or not 0 <= number < slices:
        raise ValueError(f"{path}: has {slices} slices; say which by --slice 0 to {slices - 1}")
    return number
