"""Every test starts from the same random state and an empty Pyro.

And the command line, and files of scans, written without the package.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pyro
import pytest
import SimpleITK as sitk
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from pyro_stitchnet import cli


@pytest.fixture(autouse=True)
def fresh_start() -> None:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)


def _stitchnet(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["stitchnet", *map(str, arguments)])
        cli.main()


@pytest.fixture(scope="session")
def stitchnet() -> Callable[..., None]:
    """``(*arguments)``: the command, in this process."""
    return _stitchnet


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``(*arguments)``: what a command that must fail says, without a traceback."""

    def say(*arguments: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            _stitchnet(*arguments)
        assert stop.value.code == 1
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said

    return say


def _write_slice(file: Path, stored: np.ndarray, **tags: Any) -> Path:
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2",
        "PatientID": "P7",
        "Modality": "CT",
        "SliceThickness": 2.5,
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.75, 0.5],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        **tags,
    }
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.PixelData = stored.tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file


def _write_series(
    folder: Path,
    stored: np.ndarray,
    step: Sequence[float] = (0, 0, 2.5),
    names: Sequence[str] = tuple("dbeac"),
    **tags: Any,
) -> Path:
    for k, picture in enumerate(stored):
        place = {
            "ImagePositionPatient": [round(float(k * s), 8) + 7 for s in step],
            "InstanceNumber": k,
        }
        _write_slice(folder / f"{names[k]}.dcm", picture, **{**place, **tags})
    return folder


def _write_volume(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, affine), path)
        return path
    image = sitk.GetImageFromArray(array.T)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).flatten().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, path)
    return path


@pytest.fixture(scope="session")
def write_slice() -> Callable[..., Path]:
    """``(file, stored (R, C), **tags)``: a CT slice with ordinary tags; None leaves one out."""
    return _write_slice


@pytest.fixture(scope="session")
def write_series() -> Callable[..., Path]:
    """``(folder, stored (S, R, C), step, names, **tags)``: slices one step apart.

    The files' names say nothing of their order.
    """
    return _write_series


@pytest.fixture(scope="session")
def write_volume() -> Callable[..., Path]:
    """``(path, array (I, J, K), affine)``: any format that has an affine."""
    return _write_volume


@pytest.fixture
def samples() -> Path:
    """True CT files."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("STITCHNET_SHARED", beside)) / "loader-samples"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set STITCHNET_SHARED to the folder of real files")
    return folder
