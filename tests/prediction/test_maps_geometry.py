"""Results are on the scan's own voxels and affine."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pyro_stitchnet.data.preprocessing.steps import Placement
from pyro_stitchnet.data.scans.nifti import write_nifti
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.prediction.maps import ENCODINGS, make_maps
from pyro_stitchnet.prediction.slice_segmenter import SliceSegmenter

Labels = Callable[[np.ndarray], np.ndarray]

SHAPE = (64, 48, 9)


def rotation(degrees: float) -> np.ndarray:
    """Around x, then around z by half as much."""
    (c, s), (d, t) = ((np.cos(a), np.sin(a)) for a in np.radians([degrees, degrees / 2]))
    x, z = np.eye(4), np.eye(4)
    x[1:3, 1:3], z[:2, :2] = [[c, -s], [s, c]], [[d, -t], [t, d]]
    rotated: np.ndarray = z @ x
    return rotated


def affines() -> dict[str, np.ndarray]:
    """Affines of scans stored in various orientations."""
    plain = np.diag([-0.8, -0.7, 5.0, 1.0])
    plain[:3, 3] = 100, -40, 7
    flipped = np.diag([0.8, -0.7, -5.0, 1.0])
    coronal = np.diag([-0.8, 1.0, 1.0, 1.0])
    coronal[1:3, 1:3] = [[0, -5.0], [0.7, 0]]  # the axis of 48 runs up, that of 9 to the front
    return {
        "anisotropic": plain,
        "flipped": flipped,
        "oblique": rotation(20) @ plain,
        "flipped and oblique": rotation(-25) @ flipped,
        "coronal": coronal,
    }


def read(path: Path) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_filename(path)


def segmented(grey_value_segmenter: SliceSegmenter, path: Path, folder: Path) -> dict[str, Path]:
    folder.mkdir()
    stack = read_stack(path, folder / "slices.raw")
    _, spools = make_maps(grey_value_segmenter, stack, folder, names=("labels", "scan", "healthy"))
    files = {}
    for name, spool in spools.items():
        files[name] = folder / f"{name}.nii.gz"
        write_nifti(files[name], spool, ENCODINGS[name], stack.affine, stack.nifti)
    return files


@pytest.mark.parametrize("name", affines())
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_labels_are_on_the_scans_voxels(
    grey_value_segmenter: SliceSegmenter,
    known_labels: Labels,
    write_volume: Callable[..., Path],
    tmp_path: Path,
    name: str,
    ending: str,
) -> None:
    affine = affines()[name]
    hu = np.random.default_rng(0).integers(-1250, 250, SHAPE).astype(np.int16)
    path = write_volume(tmp_path / f"scan{ending}", hu, affine)
    files = segmented(grey_value_segmenter, path, tmp_path / "out")
    labels = read(files["labels"])
    assert np.allclose(labels.affine, affine, atol=1e-4)
    assert labels.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(labels.dataobj), known_labels(hu))
    scan = read(files["scan"])
    assert np.array_equal(np.asarray(scan.dataobj), hu)
    healthy = np.where(known_labels(hu) >= 2, -1250 + 0.25 * 1500, hu)
    assert np.array_equal(np.asarray(read(files["healthy"]).dataobj), healthy)
    # SimpleITK finds the same label at the same position in the patient.
    ours, theirs = sitk.ReadImage(files["labels"]), sitk.ReadImage(path)
    for index in [(0, 0, 0), (63, 0, 8), (10, 40, 3)]:
        point = theirs.TransformIndexToPhysicalPoint(index)
        assert ours.GetPixel(ours.TransformPhysicalPointToIndex(point)) == known_labels(hu)[index]


def test_a_dicom_series_is_segmented_on_its_own_voxels(
    grey_value_segmenter: SliceSegmenter,
    known_labels: Labels,
    write_series: Callable[..., Path],
    tmp_path: Path,
) -> None:
    stored = np.random.default_rng(0).integers(0, 1270, (5, 48, 64)).astype(np.uint16)
    folder = write_series(tmp_path / "series", stored)
    files = segmented(grey_value_segmenter, folder, tmp_path / "out")
    labels = read(files["labels"])
    assert np.array_equal(np.asarray(labels.dataobj), known_labels(stored.T.astype(int) - 1024))
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    theirs, ours = sitk.ReadImage(names), sitk.ReadImage(files["labels"])
    assert np.allclose(theirs.GetOrigin(), ours.GetOrigin(), atol=1e-4)
    assert np.allclose(theirs.GetSpacing(), ours.GetSpacing(), atol=1e-4)
    assert np.allclose(theirs.GetDirection(), ours.GetDirection(), atol=1e-4)


def test_several_time_points_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8, 2), np.int16), np.eye(4)), tmp_path / "4d.nii")
    with pytest.raises(ValueError, match=r"4d\.nii.*one channel and one time point"):
        read_stack(tmp_path / "4d.nii", tmp_path / "spool")


@pytest.mark.parametrize(
    "placement",
    [
        Placement(90, 70, top=4.217, left=3.131, pixel=0.9137),
        Placement(90, 70, top=-7.0, left=2.5, pixel=1.7),
        Placement(40, 50, top=5.0, left=5.0, pixel=0.31),
    ],
)
def test_resampling_to_the_scan_agrees_with_simpleitk(placement: Placement) -> None:
    pixels = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing([placement.pixel] * 2)
    image.SetOrigin(
        [placement.left + placement.pixel / 2 - 0.5, placement.top + placement.pixel / 2 - 0.5]
    )
    like = sitk.Image(placement.columns, placement.rows, sitk.sitkFloat32)
    for order, interpolator in ((0, sitk.sitkNearestNeighbor), (1, sitk.sitkLinear)):
        resampled = sitk.Resample(image, like, sitk.Transform(), interpolator, -1.0)
        theirs = sitk.GetArrayFromImage(resampled)
        ours = placement.back(pixels, outside=-1, order=order)
        assert ours.shape == theirs.shape
        assert np.array_equal(ours == -1, theirs == -1)
        assert (np.abs(ours - theirs) < 1e-4).mean() > 0.999  # ties are broken either way
