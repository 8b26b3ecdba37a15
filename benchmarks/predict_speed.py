"""Time and memory of `stitchnet predict` for one scan.

    OMP_NUM_THREADS=2 python benchmarks/predict_speed.py --slices 300

Makes a phantom chest with slices of 512 x 512 in Hounsfield units as DICOM or NIfTI files, and
segments it with an untrained model of a preset, which takes as long as a trained one, or with a
checkpoint. Peak memory is that of this process, less its memory after loading the model.
"""

import cProfile
import pstats
import resource
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pydicom
import torch
import tyro
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from pyro_stitchnet.data.phantoms.phantom import PHANTOM_WINDOW, phantom_patient
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOut, ReadOutOptions
from pyro_stitchnet.prediction.many_scans import predict_scans
from pyro_stitchnet.prediction.one_scan import ModelSource
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint


@dataclass
class Config:
    slices: int = 300
    size: int = 256  # of the model's slices
    preset: str = "guided"
    model: Path | None = None  # a checkpoint instead
    format: Literal["dicom", "nifti"] = "dicom"
    read_out: ReadOut = "posterior"
    samples: int = 1
    batch_size: int = 8
    healthy: bool = False
    profile: bool = False  # print the functions that take longest
    seed: int = 0


def chest(slices: int, seed: int) -> np.ndarray:
    """HU (S, 512, 512): a few heights, repeated, with air around."""
    low, high = PHANTOM_WINDOW
    phantoms = phantom_patient(1, 12, size=128, seed=seed)
    hu = np.full((12, 512, 512), -1000, np.int16)
    for one, whole in zip(phantoms, hu, strict=True):
        large = ndimage.zoom(one.image, 3, order=1) * (high - low) + low
        whole[64:448, 64:448] = large
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 15, (4, 512, 512)).astype(np.int16)
    return np.stack([hu[k * 12 // slices] + noise[k % 4] for k in range(slices)])


def write(voxels: np.ndarray, form: str, folder: Path) -> Path:
    if form == "nifti":
        affine = np.diag([-0.7, -0.7, 1.25, 1.0])
        nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0), affine), folder / "scan.nii.gz")
        return folder / "scan.nii.gz"
    study, series, frame = (generate_uid() for _ in range(3))
    (folder / "scan").mkdir()
    for k, one in enumerate(voxels):
        head = pydicom.Dataset()
        head.file_meta = pydicom.dataset.FileMetaDataset()
        head.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        tags = {
            "SOPClassUID": CTImageStorage, "SOPInstanceUID": generate_uid(), "Modality": "CT",
            "StudyInstanceUID": study, "SeriesInstanceUID": series, "FrameOfReferenceUID": frame,
            "PatientID": "phantom", "PatientName": "", "InstanceNumber": k + 1,
            "ImagePositionPatient": [-180, -180, 1.25 * k], "PixelSpacing": [0.7, 0.7],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "SliceThickness": 1.25,
            "RescaleSlope": 1, "RescaleIntercept": -1024, "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2", "Rows": 512, "Columns": 512,
            "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0,
        }  # fmt: skip
        for name, value in tags.items():
            setattr(head, name, value)
        head.PixelData = (one.astype(np.int32) + 1024).clip(0).astype(np.uint16).tobytes()
        head.save_as(folder / "scan" / f"{k:05}.dcm", enforce_file_format=True)
    return folder / "scan"


def resident() -> float:
    """Megabytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main(config: Config) -> None:
    torch.manual_seed(config.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = config.model or folder / "model.pt"
        if config.model is None:
            net = StitchNet(replace(preset(config.preset).model, weights=None))
            steps = asdict(Preprocessing(size=config.size))
            checkpoint.save(net, path, dataset={"preprocessing": steps})
            del net
        scan = write(chest(config.slices, config.seed), config.format, folder)
        options = ReadOutOptions(config.read_out, config.samples, batch_size=config.batch_size)
        model = ModelSource(path, options=options, lungs="classical")
        model.load()  # its imports stay in memory
        before = resident()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        profile = cProfile.Profile()
        begun, worked = time.perf_counter(), time.process_time()
        if config.profile:
            profile.enable()
        done = predict_scans(
            [scan], model, folder / "out", workers=0, progress=False,
            extras=("scan", "healthy") if config.healthy else ("scan",),
        )  # fmt: skip
        profile.disable()
        taken, worked = time.perf_counter() - begun, time.process_time() - worked
        assert done.segmented == 1, done.failed
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
        written = sum(file.stat().st_size for file in (folder / "out").rglob("*.*")) / 1e6
        print(
            f"{config.slices} slices of 512 x 512, {config.format}, {config.model or config.preset}"
            f" at {config.size}, {config.read_out} read-out, {torch.get_num_threads()} threads:"
            f" {taken:.1f} s, {1000 * taken / config.slices:.0f} ms a slice"
            f" ({worked:.0f} s of CPU); peak {peak - before:.0f} MB over {before:.0f} MB with the"
            f" model; {written:.0f} MB written"
        )
        if config.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main(tyro.cli(Config))
