"""Three lines of Python: load, segment, look."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
import torch

import pyro_stitchnet
from pyro_stitchnet.data._scan import Job, prepare_scan
from pyro_stitchnet.data.preprocess import Grid, Preprocessing
from pyro_stitchnet.data.sources.base import Scan
from pyro_stitchnet.data.stack import Stack
from pyro_stitchnet.data.volume import Volume
from pyro_stitchnet.decision import Decision, decide
from pyro_stitchnet.labels import CONSOLIDATION, GGO, LABELS
from pyro_stitchnet.posterior import segment
from pyro_stitchnet.prediction.maps import each_slice
from pyro_stitchnet.prediction.run import predict_scans
from pyro_stitchnet.prediction.scan import Model
from pyro_stitchnet.prediction.segmenter import Options, Segmented, Segmenter, load
from pyro_stitchnet.presets import preset
from pyro_stitchnet.stitchnet import StitchNet
from pyro_stitchnet.training import checkpoint

Write = Callable[[Path], Path]


def values(path: Path) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_filename(path).dataobj)


def test_in_memory_and_on_disk_are_the_same(write_scan: Write, model: Path, tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.nii.gz")
    found = pyro_stitchnet.load(model).segment(path)
    extras = ("scan", "healthy")
    predict_scans([path], Model(model), tmp_path / "out", extras=extras, workers=1, progress=False)
    folder = tmp_path / "out" / "a"
    assert np.array_equal(found.labels, values(folder / "labels.nii.gz"))
    for name, step in (("uncertainty", np.log(4) / 255), ("lesion_probability", 1 / 255)):
        written = values(folder / f"{name}.nii.gz")
        assert np.abs(getattr(found, name) - written).max() <= 0.51 * step
    assert found.probabilities.shape == found.styles.shape == (4, *found.labels.shape)
    assert np.allclose(found.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(found.probabilities.argmax(0), found.labels)
    assert np.abs(found.healthy - values(folder / "healthy.nii.gz")).max() < 1
    found.save(tmp_path / "saved.nii.gz")
    assert np.array_equal(
        nib.Nifti1Image.from_filename(tmp_path / "saved.nii.gz").affine,
        nib.Nifti1Image.from_filename(path).affine,
    )


def test_it_draws_itself(write_scan: Write, model: Path, tmp_path: Path) -> None:
    found = pyro_stitchnet.load(model).segment(write_scan(tmp_path / "a.nii.gz"))
    said = found._repr_html_()
    assert "data:image/png;base64," in said
    assert f"{found.report['volumes_ml']['ggo']:.1f} ml" in said
    assert "research use only" in said
    assert len(repr(found)) < 5000


def test_arrays_are_axial_slices(model: Path) -> None:
    asked = pyro_stitchnet.load(model, lungs="none")
    array = np.random.default_rng(0).random((2, 80, 96))
    found = asked.segment(array)
    assert found.labels.shape == array.shape
    assert asked.segment(array[0]).labels.shape == (1, 80, 96)
    assert found.report["volumes_ml"]["lung"] is None
    assert "no volumes" in " ".join(found.report["warnings"])
    assert found.report["severity_score"] is None
    with pytest.raises(ValueError, match="three axes"):
        asked.segment(np.zeros((2, 3, 4, 5)))


def test_the_model_sees_what_a_prepared_dataset_holds(
    write_scan: Write, model: Path, tmp_path: Path
) -> None:
    """The same slices, to the bit, as `stitchnet prepare` makes of the scan."""
    path = write_scan(tmp_path / "a.nii.gz")
    asked = load(model, options=Options(samples=0))
    job = Job("plain", Scan("a", "p", path), {})
    volume, prepared = prepare_scan(job, asked.preprocessing)
    x = torch.from_numpy(np.stack([np.round(one.image * 255) for one in prepared])) / 255
    expected = segment(asked.net, x.float(), samples=0).probabilities.numpy()
    answers = list(asked.slices(Stack.of(volume)))
    assert [one.index for one in answers] == [one.index for one in prepared]
    assert [one.grid for one in answers] == [one.grid for one in prepared]
    assert np.allclose(np.stack([one.probabilities for one in answers]), expected, atol=1e-5)


def probabilities(net: StitchNet, options: Options, *, styles: bool = False) -> np.ndarray:
    """Of a scan of noise."""
    voxels = np.random.default_rng(0).normal(-500, 300, (64, 64, 3))
    stack = Stack.of(Volume(voxels, np.eye(4), True, Path("noise")))
    asked = Segmenter(net, Preprocessing(size=64, lungs="none"), options=options)
    return np.stack([one.probabilities for one in asked.slices(stack, styles=styles)])


@pytest.mark.parametrize("read_out", ["prior", "posterior"])
def test_drawing_styles_changes_no_probability(net: StitchNet, read_out: str) -> None:
    options = Options(read_out=read_out, samples=2, views=2)  # type: ignore[arg-type]
    first, again = probabilities(net, options), probabilities(net, options)
    assert np.array_equal(first, again)
    assert np.allclose(first, probabilities(net, options, styles=True), atol=1e-5)


def test_a_model_with_a_segmenter_is_read_as_asked() -> None:
    net = StitchNet(replace(preset("guided").model, weights=None)).eval()
    usual = probabilities(net, Options())
    assert np.array_equal(usual, probabilities(net, Options("posterior")))
    assert not np.allclose(usual, probabilities(net, Options("guide")))


def test_labels_are_decided_as_asked(net: StitchNet) -> None:
    voxels = np.random.default_rng(0).normal(-500, 300, (64, 64, 2))
    stack = Stack.of(Volume(voxels, np.eye(4), True, Path("noise")))
    steps = Preprocessing(size=64, lungs="none")
    found: dict[str, np.ndarray] = {}
    for decision in get_args(Decision):
        asked = Segmenter(net, steps, options=Options(decision=decision))
        labels = []
        for one in each_slice(asked, stack, styles=False)[1]:
            assert one.answer is not None
            p = torch.from_numpy(one.answer.covered()[1].copy())[None]
            assert np.array_equal(one.maps["labels"], decide(p, decision)[0].numpy())
            labels.append(one.maps["labels"])
        found[decision] = np.stack(labels)
    assert not np.array_equal(found["likeliest"], found["dice"])


def test_the_least_patch_is_in_pixels_of_the_picture(
    net: StitchNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pixel of the picture is 3 x 3 of this scan's."""
    stack = Stack.of(Volume(np.zeros((192, 192, 2)), np.eye(4), True, Path("flat")))
    asked = Segmenter(net, Preprocessing(size=64, lungs="none"), options=Options(least_patch=4))
    p = np.zeros((len(LABELS), 64, 64), np.float32)
    p[GGO] = 1
    for row, length in ((10, 3), (40, 5)):
        p[GGO, row, 10 : 10 + length] = 0
        p[CONSOLIDATION, row, 10 : 10 + length] = 1
    one = Segmented(0, Grid(192, 192, pixel=3.0), p, None)
    monkeypatch.setattr(Segmenter, "slices", lambda *_, **__: iter([one]))
    labels = next(iter(each_slice(asked, stack, styles=False)[1])).maps["labels"]
    assert not (labels[:60] == CONSOLIDATION).any()
    assert (labels[60:] == CONSOLIDATION).any()


def test_how_slices_were_prepared_must_be_known(net: StitchNet, tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    checkpoint.save(net, path)
    with pytest.raises(ValueError, match=r"old\.pt: does not say.*--size and --lungs"):
        load(path)
    assert load(path, size=64, lungs="none").preprocessing.size == 64


def test_options_out_of_range_are_refused(model: Path) -> None:
    numbers = ({"views": 9}, {"views": 0}, {"samples": -1}, {"batch_size": 0}, {"seed": -1})
    for wrong in (*numbers, {"decision": "boldest"}, {"least_patch": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Options(**wrong)
    with pytest.raises(ValueError, match="no q"):
        load(model, options=Options(read_out="guide"))
    with pytest.raises(ValueError, match="lungs 'x' is unknown"):
        load(model, lungs="x")
    assert load(model).preprocessing.window == (-1250.0, 250.0)
    assert asdict(load(model, lungs="none").preprocessing)["lungs"] == "none"
