"""Read-out options and preprocessing of a trained model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_stitchnet.data.datasets.prepare_scan import Job, prepare_scan
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.scans.stack import Stack
from pyro_stitchnet.data.scans.streaming import read_stack
from pyro_stitchnet.data.sources.base import ScanFiles
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOut, ReadOutOptions, probabilities
from pyro_stitchnet.prediction.slice_segmenter import SliceSegmenter
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint


def test_the_model_input_is_that_of_a_prepared_dataset(
    write_scan: Callable[[Path], Path], model: Path, tmp_path: Path
) -> None:
    path = write_scan(tmp_path / "a.nii.gz")
    options = ReadOutOptions(samples=0)
    segmenter = SliceSegmenter.from_checkpoint(model, options=options)
    job = Job("plain", ScanFiles("a", "p", path), {})
    prepared = list(prepare_scan(job, segmenter.preprocessing))
    x = torch.from_numpy(np.stack([stored[0] for _, stored in prepared])) / 255
    expected = probabilities(segmenter.net, x, options).numpy()
    results = list(segmenter.slices(read_stack(path)))
    assert [one.index for one in results] == [row["index"] for row, _ in prepared]
    assert np.allclose(np.stack([one.probabilities for one in results]), expected, atol=1e-5)


def probabilities_of(
    net: StitchNet, stack: Stack, options: ReadOutOptions, *, styles: bool = False
) -> np.ndarray:
    segmenter = SliceSegmenter(net, Preprocessing(size=64, lungs="none"), options=options)
    return np.stack([one.probabilities for one in segmenter.slices(stack, styles=styles)])


@pytest.mark.parametrize("read_out", ["prior", "posterior"])
def test_computing_styles_does_not_change_probabilities(
    net: StitchNet, noise: Stack, read_out: ReadOut
) -> None:
    options = ReadOutOptions(read_out=read_out, samples=2, views=2)
    first, again = (probabilities_of(net, noise, options) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.allclose(first, probabilities_of(net, noise, options, styles=True), atol=1e-5)


def test_the_read_out_option_is_used(noise: Stack) -> None:
    net = StitchNet(replace(preset("guided").model, weights=None)).eval()
    default = probabilities_of(net, noise, ReadOutOptions())
    assert np.array_equal(default, probabilities_of(net, noise, ReadOutOptions("posterior")))
    assert not np.allclose(default, probabilities_of(net, noise, ReadOutOptions("guide")))


def test_the_checkpoint_must_record_its_preprocessing(net: StitchNet, tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    records: list[dict[str, object]] = [{}, {"preprocessing": None}, {"preprocessing": {}}]
    for record in records:
        checkpoint.save(net, path, dataset=record)
        with pytest.raises(ValueError, match=r"old\.pt: does not record.*--size and --lungs"):
            SliceSegmenter.from_checkpoint(path)
    segmenter = SliceSegmenter.from_checkpoint(path, size=64, lungs="none")
    assert segmenter.preprocessing.size == 64


def test_options_that_do_not_fit_the_model_are_refused(model: Path) -> None:
    load = SliceSegmenter.from_checkpoint
    with pytest.raises(ValueError, match="no q"):
        load(model, options=ReadOutOptions(read_out="guide"))
    with pytest.raises(ValueError, match="lungs 'x' is unknown"):
        load(model, lungs="x")  # type: ignore[arg-type]
    assert load(model).preprocessing.window == (-1250.0, 250.0)
    assert load(model, lungs="none").preprocessing.lungs == "none"
