"""Synthetic scans on disk, and decoding them without this package."""

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from pyro_stitchnet.data.phantoms.phantom import PHANTOM_WINDOW, phantom_patient, phantom_slices
from pyro_stitchnet.data.scans.endings import IMAGE_ENDINGS, NIFTI_ENDINGS


def decoded(folder: Path, size: int) -> Iterator[np.ndarray]:
    """The slices of a folder's PNG, JPEG, DICOM or NIfTI files, resized to a square."""
    for path in sorted(folder.rglob("*.*")):
        if path.suffix.lower() in IMAGE_ENDINGS:
            grey = np.asarray(Image.open(path).convert("L"), np.float32)
        elif path.suffix == ".dcm":
            grey = pydicom.dcmread(path).pixel_array.astype(np.float32)
        elif path.name.endswith(NIFTI_ENDINGS):
            grey = np.asarray(nib.load(path).dataobj, np.float32).T
        else:
            continue
        for one in grey.reshape(-1, *grey.shape[-2:]):
            small = Image.fromarray(one).resize((size, size), Image.Resampling.BILINEAR)
            yield np.asarray(small)


def write_phantoms(folder: Path, volumes: int, slices: int, side: int, seed: int) -> None:
    """Write phantoms in Hounsfield units as NIfTI volumes."""
    low, high = PHANTOM_WINDOW
    for number in range(volumes):
        images = phantom_slices([number], slices, size=side, seed=seed).images.numpy()
        hu = (images * (high - low) + low).astype(np.int16)
        write_nifti(hu, folder / f"{number:03}.nii.gz", (1.4, 5.0))


def chest(slices: int, seed: int) -> np.ndarray:
    """Int16 (S, 512, 512) in HU: a few heights of a phantom, repeated, with air around."""
    low, high = PHANTOM_WINDOW
    phantoms = phantom_patient(1, 12, size=128, seed=seed)
    hu = np.full((12, 512, 512), -1000, np.int16)
    for one, whole in zip(phantoms, hu, strict=True):
        large = ndimage.zoom(one.image, 3, order=1) * (high - low) + low
        whole[64:448, 64:448] = large
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 15, (4, 512, 512)).astype(np.int16)
    return np.stack([hu[k * 12 // slices] + noise[k % 4] for k in range(slices)])


def write_nifti(hu: np.ndarray, path: Path, spacing: tuple[float, float]) -> None:
    """Write axial slices (S, R, C); spacing in the plane and between slices, in mm."""
    plane, between = spacing
    affine = np.diag([-plane, -plane, between, 1.0])
    nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0), affine), path)


def write_dicom(hu: np.ndarray, folder: Path) -> None:
    """Write axial slices (S, R, C) as one series."""
    study, series, frame = (generate_uid() for _ in range(3))
    folder.mkdir()
    rows, columns = hu.shape[1:]
    for k, one in enumerate(hu):
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
            "PhotometricInterpretation": "MONOCHROME2", "Rows": rows, "Columns": columns,
            "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0,
        }  # fmt: skip
        for name, value in tags.items():
            setattr(head, name, value)
        head.PixelData = (one.astype(np.int32) + 1024).clip(0).astype(np.uint16).tobytes()
        head.save_as(folder / f"{k:05}.dcm", enforce_file_format=True)
