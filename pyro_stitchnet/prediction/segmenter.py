"""A trained model that segments scans: preprocessing as in its training, and the way back."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyro_stitchnet.data.preprocessing.steps import Grid, Preprocessing, Slice
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.labels import ALL_LABELS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOut, predict, seeded, segment
from pyro_stitchnet.posterior.decision import Decision, check_decision
from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.training import checkpoint

if TYPE_CHECKING:
    from pyro_stitchnet.data.scans.volume import Volume
    from pyro_stitchnet.prediction.segmentation import Segmentation

__all__ = ["Options", "Segmented", "Segmenter", "load", "trained_preprocessing"]


@dataclass(frozen=True)
class Options:
    """How a model is asked.

    Attributes:
        read_out: segmentation by q(y | x), p(y | z) or p(y | x, z); by default the last where the
            model has q(y | x), else p(y | z).
        samples: draws of z to average over; 0 takes the mean of each level.
        views: flips and quarter turns of each slice to average over, 1 to 8.
        batch_size: slices at a time.
        seed: of the draws.
        decision: how probabilities become labels, see :func:`~pyro_stitchnet.posterior.decision.decide`.
        least_patch: pixels that a patch of consolidation has at least, on the picture that the
            model sees, see :func:`~pyro_stitchnet.posterior.decision.without_specks`.
    """

    read_out: ReadOut | None = None
    samples: int = 1
    views: int = 1
    batch_size: int = 8
    seed: int = 0
    decision: Decision = "likeliest"
    least_patch: float = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name, least in (("samples", 0), ("views", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.views > 8:
            raise ValueError(f"views must be at most 8, got {self.views}")
        check_decision(self.decision, self.least_patch)


@dataclass(frozen=True)
class Segmented:
    """What the model says of one slice, on the picture that it saw.

    Attributes:
        index: number of the slice in the scan, from the feet.
        grid: where the picture's pixels lie on the scan's slice.
        probabilities: of each label, float32 (K, H, W).
        styles: in [0, 1], float32 (K, H, W); None where they were not asked for.
    """

    index: int
    grid: Grid
    probabilities: np.ndarray
    styles: np.ndarray | None

    def covered(self) -> tuple[tuple[slice, slice], np.ndarray]:
        """The part of the scan's slice that the picture covers, and its probabilities (K, R, C).

        Around it is background.
        """
        return self.grid.covered(self.probabilities, order=1)


class Segmenter:
    """A trained model, and the preprocessing that its slices need.

    Attributes:
        net: the model, in evaluation mode.
        preprocessing: from a scan to its slices.
        name: the checkpoint's file.
        digest: sha256 of the checkpoint.
        info: how it was trained.
        options: how it is asked.
    """

    def __init__(
        self,
        net: StitchNet,
        preprocessing: Preprocessing,
        *,
        name: str = "",
        digest: str = "",
        info: dict[str, Any] | None = None,
        options: Options | None = None,
    ) -> None:
        """Take a model; :func:`load` reads one."""
        options = options or Options()
        if options.read_out == "guide" and net.segmenter is None:
            raise ValueError("this model has no q(y | x) to read; choose 'prior' or 'posterior'")
        self.net, self.preprocessing = net, preprocessing
        self.name, self.digest, self.info, self.options = name, digest, info or {}, options

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.net.parameters()).device

    def segment(
        self, scan: "Volume | np.ndarray | str | Path", *, series: str | None = None
    ) -> "Segmentation":
        """Segment one scan in memory.

        Args:
            scan: a file or DICOM folder, a volume, or an array: axial slices (S, R, C) from feet to
                head, front to back, the patient's right to left, or one slice (R, C), in Hounsfield
                units or of grey values that begin at 0. Arrays have no spacing, so no volumes.
            series: which SeriesInstanceUID of a DICOM folder that holds several.

        Returns:
            Labels, probabilities, uncertainty, styles and figures, on the scan's own grid.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is unreadable, or no scan.
        """
        from pyro_stitchnet.prediction.segmentation import segment_scan

        return segment_scan(self, scan, series=series)

    def slices(
        self, stack: Stack, *, styles: bool = False, stacked: bool = True
    ) -> Iterator[Segmented]:
        """Segment a scan, from the feet; slices with too little lung are left out.

        Args:
            stack: the scan.
            styles: whether to draw the styles, too.
            stacked: whether neighbouring slices are neighbours in the patient.

        Raises:
            ValueError: all voxels of the scan are alike.
        """
        unlabelled = np.broadcast_to(np.uint8(ALL_LABELS), stack.slices[0].shape)
        pictures = self.preprocessing.pictures(stack, [unlabelled] * len(stack), stacked=stacked)
        while batch := list(islice(pictures, self.options.batch_size)):
            yield from self._ask(batch, styles)

    def _ask(self, batch: list[Slice], styles: bool) -> Iterator[Segmented]:
        """One batch."""
        asked = self.options
        # A prepared dataset holds 256 grey values, and on these the model was trained.
        grey = np.stack([np.round(one.image * 255) for one in batch]).astype(np.uint8)
        x = torch.from_numpy(grey).to(self.device) / 255
        how: dict[str, Any] = {
            "samples": asked.samples, "views": asked.views, "batch_size": asked.batch_size
        }  # fmt: skip
        drawn: np.ndarray | None = None
        # Seeded by its slices: they are segmented alike whatever was segmented before.
        with seeded(asked.seed + batch[0].index, self.device):
            if styles or not self._plain:
                answer = segment(self.net, x, read_out=asked.read_out, **how)
                probabilities = answer.probabilities.float().cpu().numpy()
                drawn = answer.styles.float().cpu().numpy() if styles else None
            else:
                probabilities = predict(self.net, x, **how).float().cpu().numpy()
        for n, one in enumerate(batch):
            yield Segmented(
                one.index, one.grid, probabilities[n], None if drawn is None else drawn[n]
            )

    @property
    def _plain(self) -> bool:
        """Whether :func:`~pyro_stitchnet.posterior.predict` reads out what is asked for."""
        wanted = self.options.read_out or ("posterior" if self.net.segmenter else "prior")
        return wanted == ("guide" if self.net.segmenter else "prior")


def load(
    path: str | Path,
    *,
    device: str = "auto",
    options: Options | None = None,
    lungs: str | None = None,
    size: int | None = None,
) -> Segmenter:
    """Read a trained model, ready to segment scans.

    Args:
        path: a checkpoint, the ``model.pt`` of a run.
        device: "auto" takes a GPU if there is one.
        options: how to ask the model.
        lungs: who finds the lung field, where not as in training: "classical" for whole CT scans
            and a model that was trained on slices cropped to the lungs.
        size: rows and columns of a slice, where the checkpoint does not say.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, does not say how its slices were prepared, or an option is out of
            its range.
    """
    path = Path(path)
    net, info = checkpoint.load(path, choose_device(device))
    net = net.to(memory_format=torch.channels_last)  # a quarter less for a U-Net on CPUs
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    steps = trained_preprocessing(path, info, lungs=lungs, size=size)
    return Segmenter(net, steps, name=path.name, digest=digest, info=info, options=options)


def trained_preprocessing(
    path: Path, info: Mapping[str, Any], *, lungs: str | None, size: int | None
) -> Preprocessing:
    """The steps that a checkpoint's dataset was prepared by; arguments as `load`."""
    said = dict(info.get("dataset", {}).get("preprocessing", {}))
    changed = {"lungs": lungs, "size": size}
    said |= {name: value for name, value in changed.items() if value is not None}
    if not {"lungs", "size"} <= said.keys():
        raise ValueError(
            f"{path}: does not say how its slices were prepared (a model from before datasets did, "
            "or not by `stitchnet train`); give --size and --lungs as they were in training"
        )
    if "window" in said:
        said["window"] = tuple(said["window"])
    return Preprocessing(**said)
