"""A segmented scan in memory, for notebooks and programs."""

import base64
import html
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from pyro_stitchnet import figures
from pyro_stitchnet.data.scans.common import looks_hounsfield
from pyro_stitchnet.data.scans.nifti import map_header
from pyro_stitchnet.data.scans.not_scans import read_scan, refuse_label_map
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume, axial_affine, from_axial
from pyro_stitchnet.labels import BACKGROUND, LABELS
from pyro_stitchnet.prediction.maps import SliceMaps, slice_maps
from pyro_stitchnet.prediction.output_files import DISCLAIMER
from pyro_stitchnet.prediction.scan_report import make_report
from pyro_stitchnet.prediction.slice_segmenter import SliceResult, SliceSegmenter

__all__ = ["Segmentation", "segment_scan"]

FIGURE_SLICES = 4

Channels = Callable[[SliceResult], np.ndarray]
"""Selects an array (K, H, W) of a slice's result."""


@dataclass(frozen=True)
class Segmentation:
    """A scan and its segmentation, with a rich display in notebooks.

    Arrays are on the scan's own grid (I, J, K) and computed on first access.

    Attributes:
        stack: the scan.
        report: measurements and warnings, as in ``report.json``.
        slices: results of each axial slice, from the feet.
        window: grey values that are black and white in the model's input.
    """

    stack: Stack = field(repr=False)
    report: dict[str, Any]
    slices: tuple[SliceMaps, ...] = field(repr=False)
    window: tuple[float, float] = field(repr=False)

    @property
    def affine(self) -> np.ndarray:
        """Voxels to mm, RAS+, (4, 4)."""
        return self.stack.affine

    @cached_property
    def labels(self) -> np.ndarray:
        """0 background, 1 healthy lung, 2 GGO, 3 consolidation; uint8."""
        return self._map("labels")

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """Entropy of the labels' probabilities, nats; float32."""
        return self._map("uncertainty")

    @cached_property
    def lesion_probability(self) -> np.ndarray:
        """Probability of GGO or consolidation; float32."""
        return self._map("lesion_probability")

    @cached_property
    def healthy(self) -> np.ndarray:
        """The windowed scan with its lesions replaced by healthy lung; HU, float32."""
        return self._map("healthy")

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Probability of each label, float32 (labels, I, J, K)."""
        background = (np.arange(len(LABELS)) == BACKGROUND).astype(np.float32)
        return self._volume(lambda result: result.probabilities, background[:, None, None])

    @cached_property
    def styles(self) -> np.ndarray:
        """The scan as if all of it were one tissue, in [0, 1], float32 (labels, I, J, K).

        0 outside the model's input.
        """
        return self._volume(_styles, 0)

    def save(self, path: str | Path) -> None:
        """Write the labels as NIfTI, with the scan's geometry."""
        header = map_header(self.stack.shape, self.affine, self.stack.nifti)
        header.set_data_dtype(np.uint8)
        nib.save(nib.Nifti1Image(self.labels, None, header), path)

    def figure(self, slices: int = FIGURE_SLICES) -> Figure:
        """Draw slices with their segmentation and styles.

        Args:
            slices: largest number of slices, evenly spread over the lungs.
        """
        segmented = [i for i, one in enumerate(self.slices) if one.result is not None]
        segmented = segmented or list(range(len(self.slices)))
        at = np.linspace(0, len(segmented) - 1, min(slices, len(segmented)) + 2)[1:-1]
        chosen = sorted({segmented[round(float(i))] for i in at})
        low, high = self.window
        grey = (np.stack([self.slices[i].maps["scan"] for i in chosen]) - low) / (high - low)
        labels = np.stack([self.slices[i].maps["labels"] for i in chosen])
        styles = np.stack([self._slice(i, _styles, 0) for i in chosen])
        names = [f"slice {i}" for i in chosen]
        return figures.styles(grey, None, labels, styles, names=names)

    def _repr_html_(self) -> str:
        png = io.BytesIO()
        self.figure().savefig(png, format="png", dpi=80, bbox_inches="tight")
        encoded = base64.b64encode(png.getvalue()).decode()
        rows = "".join(
            f"<tr><td>{name}</td><td>{_with_unit(self.report['volumes_ml'][name], 'ml')}</td>"
            f"<td>{_with_unit(self.report['percent_of_lung'].get(name), '%')}</td></tr>"
            for name in self.report["volumes_ml"]
        )
        warnings = "".join(f"<li>{html.escape(text)}</li>" for text in self.report["warnings"])
        return (
            f'<img alt="segmented slices" src="data:image/png;base64,{encoded}">'
            f"<table><tr><th></th><th>volume</th><th>of the lung</th></tr>{rows}</table>"
            f"<ul>{warnings}</ul><p>{html.escape(DISCLAIMER)}</p>"
        )

    def _map(self, name: str) -> np.ndarray:
        return from_axial(np.stack([one.maps[name] for one in self.slices]), self.affine)

    def _volume(self, channels: Channels, outside: float | np.ndarray) -> np.ndarray:
        """An array per label of every slice, (labels, I, J, K)."""
        whole = np.stack([self._slice(i, channels, outside) for i in range(len(self.slices))], 1)
        return np.stack([from_axial(part, self.affine) for part in whole])

    def _slice(self, index: int, channels: Channels, outside: float | np.ndarray) -> np.ndarray:
        """An array per label of one slice, on the scan's pixels, (labels, R, C)."""
        one = self.slices[index]
        whole = np.empty((len(LABELS), *one.maps["labels"].shape), np.float32)
        whole[:] = outside
        if one.result is not None:
            box, inside = one.result.placement.covered(channels(one.result), order=1)
            whole[(slice(None), *box)] = inside
        return whole


def segment_scan(
    segmenter: SliceSegmenter, scan: Volume | np.ndarray | str | Path, *, series: str | None = None
) -> Segmentation:
    """Segment one scan in memory.

    Arguments and errors are those of :meth:`pyro_stitchnet.Segmenter.segment`.
    """
    if isinstance(scan, str | Path):
        stack = read_scan(Path(scan), series=series)
    elif isinstance(scan, Volume):
        stack = Stack.of(scan)
        refuse_label_map(scan.source, stack)
    else:
        array = np.asarray(scan)
        if array.dtype.kind not in "iuf":
            raise ValueError(f"an array of {array.dtype}; a scan has real grey values")
        array = array.astype(np.float32)
        array = array[None] if array.ndim == 2 else array
        volume = Volume(
            array, axial_affine(), looks_hounsfield(array), Path("array.npy"), spaced=False
        )
        stack = Stack.of(volume)
    totals, slices = slice_maps(segmenter, stack, styles=True)
    whole = tuple(slices)  # completes the totals
    name = stack.source.name
    report = make_report(name, segmenter, stack, totals, {})
    return Segmentation(stack, report, whole, segmenter.preprocessing.window)


def _styles(result: SliceResult) -> np.ndarray:
    assert result.styles is not None  # segment_scan computes them
    return result.styles


def _with_unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.1f} {unit}"
