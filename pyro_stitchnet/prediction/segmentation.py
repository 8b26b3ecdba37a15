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

from pyro_stitchnet import figures as pictures
from pyro_stitchnet.data.scans.common import looks_hounsfield
from pyro_stitchnet.data.scans.readers import read_volume
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume, axial_affine, from_axial
from pyro_stitchnet.labels import BACKGROUND, LABELS
from pyro_stitchnet.prediction.maps import SliceMaps, each_slice
from pyro_stitchnet.prediction.scan_report import DISCLAIMER, make_report
from pyro_stitchnet.prediction.segmenter import Segmented, Segmenter

__all__ = ["Segmentation", "segment_scan"]

DRAWN = 4  # slices

Of = Callable[[Segmented], np.ndarray]


@dataclass(frozen=True)
class Segmentation:
    """A scan and what the model makes of it; draws itself in notebooks.

    All arrays lie on the scan's own grid (I, J, K), and are made when first asked for.

    Attributes:
        stack: the scan.
        report: figures and warnings, as in ``report.json``.
        slices: what the model says of each axial slice, from the feet.
        window: the grey values that it sees as black and white.
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
        """The scan, windowed, its lesions drawn as healthy lung; HU, float32."""
        return self._map("healthy")

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of each label, float32 (K, I, J, K)."""
        outside = (np.arange(len(LABELS)) == BACKGROUND).astype(np.float32)
        return self._pictures(lambda answer: answer.probabilities, outside[:, None, None])

    @cached_property
    def styles(self) -> np.ndarray:
        """The scan as if all of it were one tissue, in [0, 1], float32 (K, I, J, K).

        0 where the model saw nothing.
        """
        return self._pictures(_styles, 0)

    def save(self, path: str | Path) -> None:
        """Write the labels as NIfTI, with the scan's affine."""
        nib.save(nib.Nifti1Image(self.labels, self.affine), path)

    def figure(self, slices: int = DRAWN) -> Figure:
        """Slices evenly spread over the lungs: segmentation, styles, reconstruction.

        Args:
            slices: how many at most.
        """
        seen = [i for i, one in enumerate(self.slices) if one.answer is not None]
        seen = seen or list(range(len(self.slices)))
        at = np.linspace(0, len(seen) - 1, min(slices, len(seen)) + 2)[1:-1]
        chosen = sorted({seen[round(float(i))] for i in at})
        low, high = self.window
        grey = (np.stack([self.slices[i].maps["scan"] for i in chosen]) - low) / (high - low)
        labels = np.stack([self.slices[i].maps["labels"] for i in chosen])
        drawn = np.stack([self._picture(i, _styles, 0) for i in chosen])
        stitched = np.take_along_axis(drawn, labels[:, None].astype(np.int64), 1)[:, 0]
        names = [f"slice {i}" for i in chosen]
        return pictures.styles(grey, None, labels, drawn, stitched, names)

    def _repr_html_(self) -> str:
        picture = io.BytesIO()
        self.figure().savefig(picture, format="png", dpi=80, bbox_inches="tight")
        encoded = base64.b64encode(picture.getvalue()).decode()
        rows = "".join(
            f"<tr><td>{name}</td><td>{_said(self.report['volumes_ml'][name], 'ml')}</td>"
            f"<td>{_said(self.report['percent_of_lung'].get(name), '%')}</td></tr>"
            for name in self.report["volumes_ml"]
        )
        notes = "".join(f"<li>{html.escape(text)}</li>" for text in self.report["warnings"])
        return (
            f'<img alt="segmented slices" src="data:image/png;base64,{encoded}">'
            f"<table><tr><th></th><th>volume</th><th>of the lung</th></tr>{rows}</table>"
            f"<ul>{notes}</ul><p>{html.escape(DISCLAIMER)}</p>"
        )

    def _map(self, name: str) -> np.ndarray:
        return from_axial(np.stack([one.maps[name] for one in self.slices]), self.affine)

    def _pictures(self, of: Of, outside: float | np.ndarray) -> np.ndarray:
        """Pictures of every slice, (K, I, J, K)."""
        whole = np.stack([self._picture(i, of, outside) for i in range(len(self.slices))], 1)
        return np.stack([from_axial(part, self.affine) for part in whole])

    def _picture(self, index: int, of: Of, outside: float | np.ndarray) -> np.ndarray:
        """A picture (K, H, W) put back onto its slice, (K, R, C)."""
        one = self.slices[index]
        whole = np.empty((len(LABELS), *one.maps["labels"].shape), np.float32)
        whole[:] = outside
        if one.answer is not None:
            box, inside = one.answer.grid.covered(of(one.answer), order=1)
            whole[(slice(None), *box)] = inside
        return whole


def segment_scan(
    segmenter: Segmenter, scan: Volume | np.ndarray | str | Path, *, series: str | None = None
) -> Segmentation:
    """See :meth:`~pyro_stitchnet.prediction.segmenter.Segmenter.segment`."""
    if isinstance(scan, str | Path):
        volume = read_volume(Path(scan), series=series)
    elif isinstance(scan, Volume):
        volume = scan
    else:
        array = np.asarray(scan, np.float32)
        array = array[None] if array.ndim == 2 else array
        volume = Volume(array, axial_affine(), looks_hounsfield(array), Path("array.npy"))
    stack = Stack.of(volume)
    totals, slices = each_slice(segmenter, stack, styles=True)
    whole = tuple(slices)
    name = volume.source.name
    report = make_report(name, name, "", segmenter, stack, totals, {})
    return Segmentation(stack, report, whole, segmenter.preprocessing.window)


def _styles(answer: Segmented) -> np.ndarray:
    assert answer.styles is not None  # asked for by segment_scan
    return answer.styles


def _said(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.1f} {unit}"
