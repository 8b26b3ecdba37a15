"""A trained model with the preprocessing of its training: axial slices in, probabilities out."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from pyro_stitchnet.data.datasets.slices import from_bytes
from pyro_stitchnet.data.preprocessing.steps import (
    LungMethod,
    Placement,
    PreparedSlice,
    Preprocessing,
    to_bytes,
)
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions, probabilities, seeded, segment
from pyro_stitchnet.posterior.folding import folded
from pyro_stitchnet.posterior.segmentation import check_read_out
from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.runtime.precision import resolved
from pyro_stitchnet.runtime.settings import validated
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training.preparation import recorded_preprocessing

__all__ = ["SliceResult", "SliceSegmenter", "trained_preprocessing"]


@dataclass(frozen=True)
class SliceResult:
    """The model's output for one slice, on the pixels of the model's input.

    Attributes:
        index: number of the slice in the scan, from the feet.
        placement: position of these pixels on the scan's slice.
        probabilities: of each label, float32 (K, H, W).
        styles: grey values of each style in [0, 1], with the slice's own vessels and noise,
            float32 (K, H, W); None if not computed.
    """

    index: int
    placement: Placement
    probabilities: np.ndarray
    styles: np.ndarray | None

    def covered(self) -> tuple[tuple[slice, slice], np.ndarray]:
        """The probabilities (K, R, C), interpolated to the pixels of the scan's slice.

        Returns:
            The box of the scan's slice that the model's input covers, as (rows, columns), and the
            probabilities in it. The slice is background outside the box.
        """
        return self.placement.covered(self.probabilities, order=1)


class SliceSegmenter:
    """A trained model and the preprocessing that its input needs.

    Attributes:
        net: the model, in evaluation mode; from a checkpoint :func:`folded
            <pyro_stitchnet.posterior.folding.folded>`, for queries only.
        preprocessing: from a scan to the model's input.
        name: the checkpoint's file.
        digest: SHA-256 of the checkpoint.
        info: the checkpoint's record of its training.
        options: read-out options.
    """

    def __init__(
        self,
        net: StitchNet,
        preprocessing: Preprocessing,
        *,
        name: str = "",
        digest: str = "",
        info: dict[str, Any] | None = None,
        options: ReadOutOptions | None = None,
    ) -> None:
        """Wrap a model; see :meth:`from_checkpoint` to read one from a file.

        Raises:
            ValueError: the model does not have the read-out.
        """
        options = options or ReadOutOptions()
        check_read_out(net, options.read_out)
        device = next(net.parameters()).device
        options = replace(options, precision=resolved(options.precision, device))
        self.net, self.preprocessing = net, preprocessing
        self.name, self.digest, self.info, self.options = name, digest, info or {}, options

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        options: ReadOutOptions | None = None,
        lungs: LungMethod | None = None,
        size: int | None = None,
    ) -> Self:
        """Read a trained model and its preprocessing.

        Args:
            path: a checkpoint, the ``model.pt`` of a run.
            device: "auto" uses a GPU if there is one.
            options: read-out options.
            lungs: lung method, in place of that of training. Use "classical" for whole CT scans if
                the model was trained on slices that were already cropped to the lungs.
            size: rows and columns of the model's input, if the checkpoint does not record them.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the checkpoint is damaged or does not record its preprocessing, or an option
                is invalid.
        """
        path = Path(path)
        net, info = checkpoint.load(path, choose_device(device))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        steps = trained_preprocessing(path, info, lungs=lungs, size=size)
        return cls(folded(net), steps, name=path.name, digest=digest, info=info, options=options)

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return next(self.net.parameters()).device

    def slices(self, stack: Stack, *, styles: bool = False) -> Iterator[SliceResult]:
        """Segment the slices of a scan, from the feet.

        Slices with too little lung are left out.

        Args:
            stack: the scan.
            styles: whether to compute the styles too.

        Raises:
            ValueError: all voxels of the scan are equal.
        """
        prepared = self.preprocessing.slices(stack)
        while batch := list(islice(prepared, self.options.batch_size)):
            yield from self._segment_batch(batch, styles)

    def _segment_batch(self, batch: list[PreparedSlice], styles: bool) -> Iterator[SliceResult]:
        # The model was trained on prepared datasets, which store 256 grey values.
        grey = to_bytes(np.stack([one.image for one in batch]))
        x = from_bytes(torch.from_numpy(grey).to(self.device))
        style_maps: np.ndarray | None = None
        # The seed depends on the slice, so that results do not depend on earlier scans.
        with seeded(self.options.seed + batch[0].index, self.device):
            if styles:
                answer = segment(self.net, x, self.options)
                p = answer.probabilities.float().cpu().numpy()
                style_maps = answer.styles.float().cpu().numpy()
            else:
                p = probabilities(self.net, x, self.options).float().cpu().numpy()
        for n, one in enumerate(batch):
            style = None if style_maps is None else style_maps[n]
            yield SliceResult(one.index, one.placement, p[n], style)


def trained_preprocessing(
    path: Path, info: Mapping[str, Any], *, lungs: LungMethod | None, size: int | None
) -> Preprocessing:
    """The preprocessing of a checkpoint's training data.

    Args:
        path: the checkpoint, for messages.
        info: its record.
        lungs: as for :meth:`SliceSegmenter.from_checkpoint`.
        size: as for :meth:`SliceSegmenter.from_checkpoint`.

    Raises:
        ValueError: the checkpoint does not record it, or has a wrong value; or ``lungs`` or
            ``size`` is invalid.
    """
    recorded = recorded_preprocessing(info)
    overrides: dict[str, Any] = {"lungs": lungs, "size": size}
    given = {name: value for name, value in overrides.items() if value is not None}
    if not {"lungs", "size"} <= {*recorded, *given}:
        raise ValueError(
            f"{path}: does not record how its training slices were prepared; give --size and "
            "--lungs as they were in training"
        )
    return replace(validated(Preprocessing, recorded, path), **given)
