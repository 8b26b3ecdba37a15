"""Units and forms of a NIfTI scan reach the report and its maps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pyro_stitchnet.prediction.many_scans import predict_scans
from pyro_stitchnet.prediction.one_scan import ModelSource
from pyro_stitchnet.prediction.segmentation import segment_scan
from pyro_stitchnet.prediction.slice_segmenter import SliceSegmenter
from pyro_stitchnet.runtime.checksums import read_json

PhantomScan = tuple[np.ndarray, np.ndarray, np.ndarray]


def predicted(path: Path, model: Path) -> tuple[dict[str, Any], nib.Nifti1Image]:
    """Predict one scan; return its report and labels."""
    out = path.parent / "out"
    summary = predict_scans([path], ModelSource(model), out, workers=0, progress=False)
    assert summary.failed.empty, summary.failed.to_dict("records")
    (report,) = out.glob("*/report.json")
    return read_json(report), nib.Nifti1Image.from_filename(report.with_name("labels.nii.gz"))


def test_volumes_do_not_depend_on_the_unit_of_length(
    phantom_scan: PhantomScan, model: Path, tmp_path: Path
) -> None:
    hu, _, affine = phantom_scan
    reports = []
    for unit, size in (("mm", 1.0), ("meter", 0.001), ("micron", 1000.0)):
        used = np.diag([size, size, size, 1]) @ affine
        image = nib.Nifti1Image(hu[:, :, 4:7], used)
        image.header.set_xyzt_units(unit)
        path = tmp_path / unit / "a.nii.gz"
        path.parent.mkdir()
        nib.save(image, path)
        report, labels = predicted(path, model)
        np.testing.assert_allclose(labels.affine, used, rtol=1e-6)
        assert labels.header.get_xyzt_units()[0] == unit
        reports.append(report)
    for key in ("volumes_ml", "sides", "spacing_mm", "warnings"):
        assert reports[0][key] == reports[1][key] == reports[2][key]
    assert reports[0]["volumes_ml"]["lung"] > 0


def test_forms_that_differ_are_reported_and_repeated(
    phantom_scan: PhantomScan, model: Path, grey_value_segmenter: SliceSegmenter, tmp_path: Path
) -> None:
    hu, _, affine = phantom_scan
    image = nib.Nifti1Image(hu, affine)
    image.set_qform(affine @ np.diag([-1.0, 1, 1, 1]), "scanner")
    image.set_sform(affine, "mni")
    path = tmp_path / "a.nii.gz"
    nib.save(image, path)
    report, labels = predicted(path, model)
    assert "left and right may be exchanged" in report["warnings"][0]
    segment_scan(grey_value_segmenter, path).save(tmp_path / "saved.nii.gz")
    for found in (labels, nib.Nifti1Image.from_filename(tmp_path / "saved.nii.gz")):
        assert (found.header["qform_code"], found.header["sform_code"]) == (1, 4)
        np.testing.assert_allclose(found.get_qform(), image.get_qform(), atol=1e-4)
        np.testing.assert_allclose(found.get_sform(), affine)
        assert found.get_data_dtype() == np.uint8
    ours, theirs = sitk.ReadImage(path), sitk.ReadImage(tmp_path / "saved.nii.gz")
    assert ours.GetOrigin() == theirs.GetOrigin()
    assert ours.GetDirection() == theirs.GetDirection()


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".nii"])
def test_a_volume_without_spacing_has_no_volumes(
    phantom_scan: PhantomScan, model: Path, tmp_path: Path, ending: str
) -> None:
    hu, path = phantom_scan[0], tmp_path / f"a{ending}"
    if ending == ".mha":
        head = "NDims = 3\nDimSize = {} {} {}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        path.write_bytes(head.format(*hu.shape).encode() + hu.tobytes("F"))
    elif ending == ".nrrd":
        head = "NRRD0004\ntype: short\ndimension: 3\nsizes: {} {} {}\nencoding: raw\n"
        path.write_bytes(head.format(*hu.shape).encode() + b"endian: little\n\n" + hu.tobytes("F"))
    else:
        header = nib.Nifti1Header()
        header.set_data_shape(hu.shape)
        header.set_data_dtype(np.int16)
        header["pixdim"], header["vox_offset"] = 0, 352
        path.write_bytes(header.binaryblock + bytes(4) + hu.tobytes("F"))
    report, _ = predicted(path, model)
    assert report["volumes_ml"]["lung"] is None
    assert "The file has no voxel spacing: no volumes." in report["warnings"]


def test_doubts_about_a_scan_are_told_when_it_is_prepared(
    phantom_scan: PhantomScan,
    stitchnet: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        image = nib.Nifti1Image(phantom_scan[0], None)
        image.header.set_zooms((4.5, 4.5, 20))
        nib.save(image, tmp_path / "in" / f"{name}.nii.gz")
    out = tmp_path / "out"
    stitchnet("prepare", tmp_path / "in", "--out", out, "--size", 64, "--workers", 1)
    assert "note: scans: 2: The NIfTI header states no orientation" in capsys.readouterr().err
    assert "states no orientation" in (out / "manifest.csv").read_text()
