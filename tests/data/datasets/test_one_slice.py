"""One slice of a dataset or of a scan's file, and errors."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
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
    one = read_slice(tmp_path / "data", 3)
    assert one.name == slices.names[3]
    assert abs(one.image - slices.images[3]).max() <= 0.501 / 255
    assert one.truth is not None
    assert (one.truth == slices.labels()[3]).all()
    with pytest.raises(ValueError, match="has 4 slices; choose one by --slice 0 to 3"):
        read_slice(tmp_path / "data")


def test_prepared_files_are_only_rounded(tmp_path: Path, image: np.ndarray) -> None:
    levels = (255 * image).round().astype(np.uint8)
    np.save(tmp_path / "a.npy", image)
    Image.fromarray(levels).save(tmp_path / "a.png")
    for name in ("a.npy", "a.png"):
        one = read_slice(tmp_path / name)
        assert torch.equal(one.image, torch.from_numpy(levels) / 255)
        assert one.truth is None
        assert one.name == name


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".npy"])
def test_a_scans_slices_equal_those_of_its_prepared_dataset(
    tmp_path: Path, write_volume: Callable[..., Path], ending: str
) -> None:
    hu = np.stack([phantom.image for phantom in phantom_patient(1, 4, size=96)]) * 1250 - 1025
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / f"a{ending}"
    if ending == ".npy":
        np.save(path, hu.astype(np.float32))
    else:
        write_volume(path, hu.T.astype(np.float32), np.diag([-3.0, -3.0, 5.0, 1.0]))
    (tmp_path / "index.csv").write_text(f"file,patient\n{path.name},p\n")
    steps = Preprocessing(size=64)
    dataset = prepare([str(tmp_path)], tmp_path / "data", preprocessing=steps, progress=False)
    assert len(dataset) > 2
    for i, index in enumerate(dataset.manifest["index"]):
        one = read_slice(path, int(index), steps)
        assert torch.equal(one.image, dataset[i][0])
        assert torch.equal(one.label_sets, dataset[i][1])


def test_a_scans_slice_is_prepared_with_the_given_steps(tmp_path: Path) -> None:
    scan = np.stack([phantom.image for phantom in phantom_patient(1, 3, size=96)])
    hu = (1250 * scan - 1025).transpose(2, 1, 0)[::-1, ::-1]  # to RAS+
    nib.save(nib.Nifti1Image(hu.astype(np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    steps = Preprocessing(size=64, lungs="none", window=(-1025.0, 225.0))
    one = read_slice(tmp_path / "scan.nii.gz", 2, steps)
    small = np.asarray(Image.fromarray(scan[2]).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(one.image.numpy() - small).max() < 0.5 / 255 + 1e-4
    assert one.name == "scan.nii.gz, slice 2"
    with pytest.raises(ValueError, match="leave out --prepared"):
        read_slice(tmp_path / "scan.nii.gz", 2)
    with pytest.raises(ValueError, match="--slice 0 to 2"):
        read_slice(tmp_path / "scan.nii.gz", 3, steps)


def test_a_slice_without_lung_is_refused(tmp_path: Path) -> None:
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
    for name, message in (("nan.npy", "not a number"), ("colour.png", "not grey")):
        with pytest.raises(ValueError, match=message):
            read_slice(tmp_path / name, 0, STEPS)
    with pytest.raises(FileNotFoundError, match="missing"):
        read_slice(tmp_path / "none.png")
