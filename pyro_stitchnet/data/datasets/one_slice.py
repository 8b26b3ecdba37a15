"""One slice of a prepared dataset or of a scan's file, ready for a model."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.slices import from_bytes
from pyro_stitchnet.data.preprocessing.steps import Preprocessing, to_bytes, window
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.labels import ALL_LABELS

__all__ = ["OneSlice", "read_slice"]


@dataclass(frozen=True)
class OneSlice:
    """A slice and its labels.

    Attributes:
        image: grey values in [0, 1], float32 (H, W).
        label_sets: the labels that each pixel may have, bit k for label k, uint8 (H, W).
        name: of the slice.
    """

    image: Tensor
    label_sets: Tensor
    name: str

    @property
    def truth(self) -> Tensor | None:
        """The label map, int64 (H, W); None unless every pixel has one label."""
        single = (self.label_sets & (self.label_sets - 1)) == 0
        if not single.all():
            return None
        return self.label_sets.float().log2().round().long()


def read_slice(
    path: Path, number: int | None = None, preprocessing: Preprocessing | None = None
) -> OneSlice:
    """Read one slice. The slice of a scan is bit-identical to that of a dataset made from the scan.

    Args:
        path: a prepared dataset, or a scan that
            :func:`~pyro_stitchnet.data.scans.streaming.read_stack` reads.
        number: of the slice, from 0 (in a scan, from the feet); optional where there is only one.
        preprocessing: the steps from a scan to a slice, those of the model's own dataset; None for
            a slice that is already prepared. Not used for a prepared dataset.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: it is unreadable, has no such slice, or the slice shows too little lung.
    """
    if (path / "dataset.json").is_file():
        dataset = Dataset(path)
        index = _chosen(path, number, len(dataset))
        return OneSlice(*dataset[index], dataset.names[index])
    with tempfile.TemporaryDirectory() as work:
        stack = read_stack(path, Path(work) / "slices.raw")
        index = _chosen(path, number, len(stack))
        grey = to_bytes(_image(stack, index, preprocessing))
    image = from_bytes(torch.from_numpy(grey))
    sets = torch.full(image.shape, ALL_LABELS, dtype=torch.uint8)
    name = path.name if len(stack) == 1 else f"{path.name}, slice {index}"
    return OneSlice(image, sets, name)


def _image(stack: Stack, index: int, preprocessing: Preprocessing | None) -> np.ndarray:
    """Return the grey values of a slice, in [0, 1], float32 (H, W)."""
    if preprocessing is None:
        if stack.hounsfield:
            raise ValueError(
                f"{stack.source}: holds Hounsfield units, so it is not prepared yet; leave out "
                "--prepared"
            )
        return window(stack.slices[index], *stack.full_scale())
    for one in preprocessing.slices(stack):
        if one.index == index:
            return one.image
    raise ValueError(
        f"{stack.source}: slice {index} shows too little lung; choose another --slice, or give "
        "--prepared if it is cropped to the lungs already"
    )


def _chosen(path: Path, number: int | None, slices: int) -> int:
    if number is None and slices == 1:
        return 0
    if number is None or not 0 <= number < slices:
        raise ValueError(f"{path}: has {slices} slices; choose one by --slice 0 to {slices - 1}")
    return number
