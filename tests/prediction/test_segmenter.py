"""Segmentation in memory."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import pyro_stitchnet
from pyro_stitchnet.data.scans.volume import Volume
from pyro_stitchnet.prediction.many_scans import predict_scans
from pyro_stitchnet.prediction.one_scan import ModelSource

Write = Callable[[Path], Path]


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)


def test_results_in_memory_and_on_disk_agree(
    write_scan: Write, model: Path, tmp_path: Path
) -> None:
    path = write_scan(tmp_path / "a.nii.gz")
    segmentation = pyro_stitchnet.load(model).segment(path)
    extras = ("scan", "healthy")
    predict_scans(
        [path], ModelSource(model), tmp_path / "out", extras=extras, workers=0, progress=False
    )
    folder = tmp_path / "out" / "scan-0001"
    assert np.array_equal(segmentation.labels, voxels(folder / "labels.nii.gz"))
    for name, step in (("uncertainty", np.log(4) / 255), ("lesion_probability", 1 / 255)):
        written = voxels(folder / f"{name}.nii.gz")
        assert np.abs(getattr(segmentation, name) - written).max() <= 0.51 * step
    for per_label in (segmentation.probabilities, segmentation.styles):
        assert per_label.shape == (4, *segmentation.labels.shape)
    assert np.allclose(segmentation.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(segmentation.probabilities.argmax(0), segmentation.labels)
    assert np.abs(segmentation.healthy - voxels(folder / "healthy.nii.gz")).max() < 1
    segmentation.save(tmp_path / "saved.nii.gz")
    assert np.array_equal(
        nib.Nifti1Image.from_filename(tmp_path / "saved.nii.gz").affine,
        nib.Nifti1Image.from_filename(path).affine,
    )


def test_a_segmentation_has_a_notebook_display(
    write_scan: Write, model: Path, tmp_path: Path
) -> None:
    segmentation = pyro_stitchnet.load(model).segment(write_scan(tmp_path / "a.nii.gz"))
    html = segmentation._repr_html_()
    assert "data:image/png;base64," in html
    assert f"{segmentation.report['volumes_ml']['ggo']:.1f} ml" in html
    assert "research use only" in html
    assert len(repr(segmentation)) < 5000


def test_arrays_are_axial_slices(model: Path) -> None:
    segmenter = pyro_stitchnet.load(model, lungs="none")
    array = np.random.default_rng(0).random((2, 80, 96))
    segmentation = segmenter.segment(array)
    assert segmentation.labels.shape == array.shape
    assert segmenter.segment(array[0]).labels.shape == (1, 80, 96)
    assert segmentation.report["volumes_ml"]["lung"] is None
    assert "no volumes" in " ".join(segmentation.report["warnings"])
    assert segmentation.report["severity_score"] is None
    with pytest.raises(ValueError, match="three axes"):
        segmenter.segment(np.zeros((2, 3, 4, 5)))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((1, 64, 64), bool), "an array of bool"),
        (np.ones((1, 64, 64), complex), "an array of complex128"),
    ],
)
def test_arrays_that_are_no_scans_are_refused(model: Path, array: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pyro_stitchnet.load(model, lungs="none").segment(array)


def test_a_map_of_predict_is_no_scan(write_scan: Write, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scan = write_scan(tmp_path / "a.nii.gz")
    predict_scans([scan], ModelSource(model), out, workers=0, progress=False)
    labels, segmenter = out / "scan-0001" / "labels.nii.gz", pyro_stitchnet.load(model)
    with pytest.raises(ValueError, match="a map that `stitchnet predict` wrote"):
        segmenter.segment(labels)
    volume = Volume((np.arange(4096) % 4 * 85.0).reshape(1, 64, 64), np.eye(4), False, labels)
    with pytest.raises(ValueError, match="a label map, not a scan"):
        segmenter.segment(volume)
