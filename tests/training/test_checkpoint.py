"""Checkpoints: the same model again, and what is refused."""

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOutOptions, segment
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint


@pytest.fixture(scope="module")
def net() -> StitchNet:
    return StitchNet(preset("tiny").model).eval()


def test_save_and_load_give_identical_output(net: StitchNet, tmp_path: Path) -> None:
    x, options = torch.rand(2, 32, 32), ReadOutOptions(samples=0)
    checkpoint.save(net, tmp_path / "model.pt", seed=3)
    loaded, info = checkpoint.load(tmp_path / "model.pt")
    before, after = segment(net, x, options), segment(loaded, x, options)
    assert torch.equal(before.probabilities, after.probabilities)
    assert torch.equal(before.styles, after.styles)
    assert loaded.config == net.config
    assert info == {"seed": 3}
    assert not loaded.training


def test_each_weight_is_saved_once(net: StitchNet, tmp_path: Path) -> None:
    checkpoint.save(net, tmp_path / "model.pt")
    weights = torch.load(tmp_path / "model.pt", weights_only=True)["weights"]
    storages = [w.untyped_storage().data_ptr() for w in weights.values() if w.numel()]
    assert len(storages) == len(set(storages))
    assert sum(w.numel() for n, w in weights.items() if n in dict(net.named_parameters())) == sum(
        p.numel() for p in net.parameters()
    )


@pytest.mark.parametrize("shared_crush", [True, False])
def test_a_model_without_labels_is_read_by_load_any_and_refused_by_load(
    shared_crush: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    config = replace(preset("tiny-logistic").model, stitched=False, shared_crush=shared_crush)
    svae = SliceVAE(config)
    checkpoint.save(svae, path, seed=3)
    loaded, info = checkpoint.load_any(path)
    assert isinstance(loaded, SliceVAE)
    assert loaded.config == config
    assert info == {"seed": 3}
    for before, after in zip(svae.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(before, after)
    with pytest.raises(ValueError, match=r"model\.pt: holds the SVAE alone.*another preset"):
        checkpoint.load(path)


def test_load_any_reads_a_stitchnet(net: StitchNet, tmp_path: Path) -> None:
    checkpoint.save(net, tmp_path / "model.pt")
    loaded, _ = checkpoint.load_any(tmp_path / "model.pt")
    assert isinstance(loaded, StitchNet)


def test_the_file_of_the_initial_weights_is_not_needed_again(tmp_path: Path) -> None:
    start = tmp_path / "start.pt"
    torch.save(mobilenet_v2().features.state_dict(), start)
    config = replace(preset("tiny").model, width=1.0, weights=str(start))
    checkpoint.save(StitchNet(config), tmp_path / "model.pt")
    start.unlink()
    loaded, _ = checkpoint.load(tmp_path / "model.pt")
    assert loaded.config == config


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_loaded_classifier_keeps_batch_norm_as_in_training(
    pretrained: bool, tmp_path: Path
) -> None:
    start = tmp_path / "start.pt"
    torch.save(mobilenet_v2().features.state_dict(), start)
    config = replace(preset("guided").model, weights=str(start) if pretrained else None)
    checkpoint.save(StitchNet(config), tmp_path / "model.pt")
    loaded, _ = checkpoint.load(tmp_path / "model.pt")
    assert loaded.classifier is not None
    loaded.train()
    layers = [m for m in loaded.classifier.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {layer.training for layer in layers} == {not pretrained}


def test_bad_files(net: StitchNet, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match=r"model\.pt"):
        checkpoint.load(path)
    checkpoint.save(net, path)
    whole = path.read_bytes()
    for length in (10, 1000, 5000, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.pt: damaged"):
            checkpoint.load(path)
    for text in ("not a checkpoint", "hello\n", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"model\.pt: damaged"):
            checkpoint.load(path)
    torch.save({"weights": {}}, path)
    with pytest.raises(ValueError, match=r"model\.pt: not a stitchnet checkpoint"):
        checkpoint.load(path)


def test_files_of_other_networks_or_versions(net: StitchNet, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(net, path)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "config": {**content["config"], "segmenter": True}}, path)
    with pytest.raises(ValueError, match=r"another version of stitchnet, .*\['segmenter'\]"):
        checkpoint.load(path)
    torch.save({**content, "config": {**content["config"], "head_channels": 8}}, path)
    with pytest.raises(ValueError, match=r"model\.pt: its weights do not fit the networks"):
        checkpoint.load(path)


def changed(path: Path, **parts: Any) -> None:
    """Rewrite parts of a checkpoint, with right checksums."""
    torch.save({**torch.load(path, weights_only=True), **parts}, path)


@pytest.mark.parametrize("part", ["config", "weights", "info"])
@pytest.mark.parametrize("value", [None, 3, [1], "text"])
def test_a_checkpoint_without_a_part_is_refused(
    net: StitchNet, tmp_path: Path, part: str, value: object
) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(net, path)
    changed(path, **{part: value})
    with pytest.raises(ValueError, match=r"model\.pt: lacks a configuration, weights or"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("channels", (3_200_000,) * 5, "channels.0 must be at most 2,048"),
        ("channels", (2048,) * 5, "its weights do not fit"),
        ("channels", "wide", "channels: "),
        ("width", 1e9, "width must be at most 4"),
        ("downsampling", 10**9, "downsampling must be at most"),
        ("start_deviation", float("nan"), "start_deviation must be"),
        ("norm", 3, "norm: "),
    ],
)
def test_sizes_that_a_checkpoint_claims_are_not_believed(
    net: StitchNet, tmp_path: Path, name: str, value: object, words: str
) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(net, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = torch.load(path, weights_only=True)["config"]
    changed(path, config={**config, name: value})
    with pytest.raises(ValueError, match=rf"model\.pt: .*{words}"):
        checkpoint.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w * float("nan"), "a weight is not finite"),
        (lambda w: w[:1], "do not fit"),
        (lambda w: torch.zeros(1).expand(w.shape), "do not fit"),
        (lambda w: w.double(), "do not fit"),
        (lambda w: w.to("meta"), "do not fit"),
        (lambda w: w.flatten(1).to_sparse(), "damaged"),
        (lambda w: None, "do not fit"),
    ],
)
def test_a_weight_that_is_none_is_refused(
    net: StitchNet, tmp_path: Path, change: Callable[[torch.Tensor], object], words: str
) -> None:
    path = tmp_path / "model.pt"
    checkpoint.save(net, path)
    weights = torch.load(path, weights_only=True)["weights"]
    name = next(name for name, weight in weights.items() if weight.ndim == 4)
    changed(path, weights={**weights, name: change(weights[name])})
    with pytest.raises(ValueError, match=rf"model\.pt: .*{words}"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "info",
    [
        {"patients": 3},
        {"patients": {"test": [1]}},
        {"dataset": 3},
        {"dataset": {"preprocessing": {"window": [1]}}},
        {"dataset": {"preprocessing": {"smoothing": 1}}},
    ],
)
def test_a_record_of_another_kind_is_refused(
    net: StitchNet, tmp_path: Path, info: dict[str, object]
) -> None:
    checkpoint.save(net, tmp_path / "model.pt", **info)
    with pytest.raises(ValueError, match=rf"model\.pt: {next(iter(info))}"):
        checkpoint.load(tmp_path / "model.pt")
