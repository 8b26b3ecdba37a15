"""The Python interface: load a trained model and segment scans with it."""

from pathlib import Path

import numpy as np

from pyro_stitchnet.data.preprocessing.steps import LungMethod
from pyro_stitchnet.data.scans.volume import Volume
from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.prediction.segmentation import Segmentation, segment_scan
from pyro_stitchnet.prediction.slice_segmenter import SliceSegmenter

__all__ = ["Segmenter", "load"]


class Segmenter(SliceSegmenter):
    """A trained model that segments scans in memory; :func:`load` reads one."""

    def segment(
        self, scan: Volume | np.ndarray | str | Path, *, series: str | None = None
    ) -> Segmentation:
        """Segment one scan.

        Args:
            scan: a file or DICOM folder, a volume, or an array of axial slices (S, R, C) from feet
                to head, rows from front to back, columns from the patient's right to left, or of
                one slice (R, C). Grey values are Hounsfield units or begin at 0. Arrays have no
                spacing, so no volumes are measured.
            series: SeriesInstanceUID, for a DICOM folder with several series.

        Returns:
            Labels, probabilities, uncertainty, styles, measurements and figures, on the scan's own
            grid.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is unreadable or not a scan.
        """
        return segment_scan(self, scan, series=series)


def load(
    path: str | Path,
    *,
    device: str = "auto",
    options: ReadOutOptions | None = None,
    lungs: LungMethod | None = None,
    size: int | None = None,
) -> Segmenter:
    """Read a trained model, ready to segment scans.

    Args:
        path: a checkpoint, the ``model.pt`` of a run.
        device: "auto" uses a GPU if there is one.
        options: read-out options.
        lungs: lung method, in place of that of training. Use "classical" for whole CT scans if the
            model was trained on slices that were already cropped to the lungs.
        size: rows and columns of the model's input, if the checkpoint does not record them.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the checkpoint is damaged or does not record its preprocessing, or an option is
            invalid.
    """
    return Segmenter.from_checkpoint(path, device=device, options=options, lungs=lungs, size=size)
