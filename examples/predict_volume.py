"""Segment one CT scan in memory: labels on the scan's own grid, their uncertainty, volumes.

    stitchnet train DATASET --out runs/some
    python examples/predict_volume.py scan.nii.gz --model runs/some/model.pt --out segmented

A scan is a volume (NIfTI, NRRD, MetaImage) or a folder with a DICOM series. `stitchnet predict`
does this for many scans on several cores or machines, and writes DICOM SEG. For research only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import tyro

import pyro_stitchnet
from pyro_stitchnet.figures import save_figure
from pyro_stitchnet.labels import LABELS
from pyro_stitchnet.posterior import ReadOutOptions


@dataclass
class Config:
    scan: tyro.conf.Positional[Path]
    model: Path
    out: Path = Path("segmented")
    series: str | None = None  # SeriesInstanceUID, for a DICOM folder with several series
    lungs: Literal["classical", "lungmask", "none"] | None = None  # by default as in training
    size: int | None = None  # of a slice, if the checkpoint does not record it
    views: int = 1  # flips and quarter turns to average over
    device: str = "auto"


def main(config: Config) -> None:
    segmenter = pyro_stitchnet.load(
        config.model,
        device=config.device,
        options=ReadOutOptions(views=config.views),
        lungs=config.lungs,
        size=config.size,
    )
    answer = segmenter.segment(config.scan, series=config.series)

    config.out.mkdir(parents=True, exist_ok=True)
    answer.save(config.out / "labels.nii.gz")
    uncertainty = nib.Nifti1Image(answer.uncertainty, answer.affine)  # nats, voxel by voxel
    nib.save(uncertainty, config.out / "uncertainty.nii.gz")
    save_figure(answer.figure(), config.out / "slices.png")

    print("voxels:", {name: int((answer.labels == k).sum()) for k, name in enumerate(LABELS)})
    for tissue, volume in answer.report["volumes_ml"].items():
        print(f"{tissue}: {'unknown' if volume is None else f'{volume:.0f}'} ml")
    for warning in answer.report["warnings"]:
        print(f"warning: {warning}")
    print(f"labels, uncertainty and a figure: {config.out}")


if __name__ == "__main__":
    main(tyro.cli(Config))
