"""One slice from a dataset or a file, prepared or to be prepared, and what is refused."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.data.datasets.one_slice import read_slice
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_patient, phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing

STEPS = Preprocessing(size=64, lungs="none")


@pytest.fixture
def image() -> np.ndarray:
    return phantom_patient(1, 1, size=64)[0].image


def test_a_dataset_gives_its_slice_with_labels(tmp_path: Path) -> None:
    slices = phantom_slices(2, 2, size=64)
    write_folder(slices, tmp_path / "folder")
    prepare(
        [str(tmp_path / "folder")], tmp_path / "data", preprocessing=STEPS, workers=1,
        progress=False,
    )  # fmt: skip
    found = read_slice(tmp_path / "data", 3)
    assert found.name == slices.names[3]
    assert abs(found.image - slices.images[3]).max() < 0.01
    assert found.truth is not None
    assert (found.truth == slices.labels()[3]).all()
    with pytest.raises(ValueError, match="has 4 slices; say which by --slice 0 to 3"):
        read_slice(tmp_path / "data")


def test_files_that_are_prepared_stay_as_they_are(tmp_path: Path, image: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", image)
    Image.fromarray((255 * image).round().astype(np.uint8)).save(tmp_path / "a.png")
    for name, least in (("a.npy", 1e-6), ("a.png", 1 / 400)):
        found = read_slice(tmp_path / name)
        assert np.abs(found.image.numpy() - image).max() < least
        assert found.truth is None
        assert found.name == name


def test_a_scans_slice_is_prepared_as_the_models_dataset_was(tmp_path: Path) -> None:
    scan = np.stack([phantom.image for phantom in phantom_patient(1, 3, size=96)])
    hu = (1250 * scan - 1025).transpose(2, 1, 0)[::-1, ::-1]  # to RAS+
    nib.save(nib.Nifti1Image(hu.astype(np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    steps = Preprocessing(size=64, lungs="none", window=(-1025.0, 225.0))
    found = read_slice(tmp_path / "scan.nii.gz", 2, steps)
    small = np.asarray(Image.fromarray(scan[2]).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(found.image.numpy() - small).max() < 1e-4
    assert found.name == "scan.nii.gz, slice 2"
    with pytest.raises(ValueError, match="leave out --prepared"):
        read_slice(tmp_path / "scan.nii.gz", 2)
    with pytest.raises(ValueError, match="--slice 0 to 2"):
        read_slice(tmp_path / "scan.nii.gz", 3, steps)


def test_no_lung_is_said(tmp_path: Path) -> None:
    scan = np.full((4, 96, 96), 40.0, np.float32)
    scan[:, 20:40, 20:40] = -1000
    np.save(tmp_path / "flat.npy", scan)
    with pytest.raises(ValueError, match="too little lung"):
        read_slice(tmp_path / "flat.npy", 0, Preprocessing(size=64, least_lung=0.9))


def test_bad_files_are_refused_by_name(tmp_path: Path, image: np.ndarray) -> None:
    broken = image.copy()
    broken[0, 0] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    colour = np.stack([image, image[::-1], image], -1)
    Image.fromarray((255 * colour).astype(np.uint8)).save(tmp_path / "colour.png")
    for name, said in (("nan.npy", "not a number"), ("colour.png", "not grey")):
        with pytest.raises(ValueError, match=said):
            read_slice(tmp_path / name, 0, STEPS)
    with pytest.raises(FileNotFoundError, match="missing"):
        read_slice(tmp_path / "none.png")
