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
from pyro_stitchnet.data.datasets.prepare_scan import Job, prepare_scan
from pyro_stitchnet.data.preprocessing.steps import Grid, Preprocessing
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.volume import Volume
from pyro_stitchnet.data.sources.base import Scan
from pyro_stitchnet.labels import CONSOLIDATION
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import segment
from pyro_stitchnet.posterior.decision import Decision, decide, without_specks
from pyro_stitchnet.prediction.many_scans import predict_scans
from pyro_stitchnet.prediction.maps import each_slice
from pyro_stitchnet.prediction.one_scan import Model
from pyro_stitchnet.prediction.segmenter import Options, Segmented, Segmenter, load
from pyro_stitchnet.presets import preset
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


@pytest.mark.parametrize("pixel", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("least", [4, 6, 9])
def test_patches_are_counted_on_the_picture_as_evaluate_counts_them(
    net: StitchNet, monkeypatch: pytest.MonkeyPatch, pixel: float, least: int
) -> None:
    """Soft patches of 4 and 8 pixels: on the scan's pixels they are of other sizes."""
    p = torch.tensor([0, 0, 0.8, 0.2])[:, None, None].repeat(1, 64, 64)
    for row, columns in ((10, 2), (40, 4)):
        p[2:, row : row + 2, 10 : 10 + columns] = torch.tensor([0.45, 0.55])[:, None, None]
    side = int(64 * pixel)
    answer = Segmented(0, Grid(side, side, pixel=pixel), p.numpy(), None)
    monkeypatch.setattr(Segmenter, "slices", lambda *_, **__: iter([answer]))
    steps = Preprocessing(size=64, lungs="none")
    asked = Segmenter(net, steps, options=Options(least_patch=least))
    stack = Stack.of(Volume(np.zeros((side, side, 2)), np.eye(4), True, Path("flat")))
    found = next(iter(each_slice(asked, stack, styles=False)[1])).maps["labels"]
    told = decide(without_specks(p[None], "likeliest", least))[0].numpy()
    for upper, size in ((True, 4), (False, 8)):
        for labels in (found, told):
            half = labels[: len(labels) // 2] if upper else labels[len(labels) // 2 :]
            assert (half == CONSOLIDATION).any() == (least <= size)


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
