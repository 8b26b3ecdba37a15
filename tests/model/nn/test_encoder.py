"""The encoder against torchvision's MobileNetV2, Table 2 and the reference code's counts."""

import hashlib
import os
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
from torchvision.models._api import WeightsEnum

from pyro_stitchnet.model.config import Wiring
from pyro_stitchnet.model.nn.encoder import (
    GREY_MEAN,
    GREY_STD,
    MobileNetPyramid,
    load_imagenet_weights,
)

WIRINGS = get_args(Wiring)
LAST_AT_EACH_SIZE = (1, 3, 6, 13, 18)  # torchvision's blocks, counted by hand

# The folder of this file documents its origin.
CONVERTED = (
    Path(__file__).parents[3] / ".." / "shared" / "weights" / "mobilenet_v2_imagenet_features.pt"
)


def with_statistics(module: nn.Module) -> nn.Module:
    """Random running statistics and affine weights: those of a fresh batch norm change nothing."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            assert child.running_mean is not None
            assert child.running_var is not None
            child.running_mean.normal_(0, 0.1)
            child.running_var.uniform_(0.5, 2)
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, 0, 0.1)
    return module


@pytest.fixture
def classifier() -> nn.Module:
    return with_statistics(mobilenet_v2())


@pytest.fixture
def weights(classifier: nn.Module, tmp_path: Path) -> Path:
    """A file as in the message for a missing download."""
    path = tmp_path / "features.pt"
    assert isinstance(classifier.features, nn.Module)
    torch.save(classifier.features.state_dict(), path)
    return path


def silence(projection: nn.Module) -> None:
    """Make a projection constant, by its last normalisation."""
    last = [m for m in projection.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@torch.no_grad()
def activations(pyramid: MobileNetPyramid, x: Tensor) -> list[Tensor]:
    h, outputs = (x - GREY_MEAN) / GREY_STD, []
    for part in pyramid.parts:
        h = part(h)
        outputs.append(h)
    return outputs


@torch.no_grad()
def torchvision_activations(features: nn.Module, x: Tensor) -> list[Tensor]:
    """Activations of torchvision's network for the grey slice, repeated for red, green, blue."""
    h, outputs = ((x - GREY_MEAN) / GREY_STD).repeat(1, 3, 1, 1), []
    for index, block in enumerate(features.children()):
        h = block(h)
        if index in LAST_AT_EACH_SIZE:
            outputs.append(h)
    return outputs


# --- Shapes and sizes -----------------------------------------------------------------------------


@pytest.mark.parametrize("wiring", WIRINGS)
def test_the_pyramid_has_the_shapes_of_table_2(wiring: Wiring) -> None:
    with torch.device("meta"):  # shapes without the arithmetic
        pyramid = MobileNetPyramid(wiring=wiring)(torch.rand(2, 1, 352, 352))
    assert [tuple(d.shape) for d in pyramid] == [
        (2, 32, 176, 176),
        (2, 64, 88, 88),
        (2, 128, 44, 44),
        (2, 256, 22, 22),
        (2, 512, 11, 11),
    ]


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("norm_kind", ["batch", "group"])
def test_a_narrow_pyramid_of_an_oblong_slice(wiring: Wiring, norm_kind: str) -> None:
    net = MobileNetPyramid((8, 12, 16, 24, 32), wiring=wiring, width=0.35, norm_kind=norm_kind)
    pyramid = net(torch.rand(2, 1, 64, 96))
    assert [tuple(d.shape) for d in pyramid] == [
        (2, f, 64 >> n, 96 >> n) for n, f in enumerate((8, 12, 16, 24, 32), start=1)
    ]
    sum(d.square().sum() for d in pyramid).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_in_chain_stages_have_the_reference_codes_parameters() -> None:
    with torch.device("meta"):
        net = MobileNetPyramid(wiring="in-chain")
    returns = [nn.Identity(), *net.returns]
    stages = [
        parameters(back, part, down)
        for back, part, down in zip(returns, net.parts, net.projections, strict=True)
    ]
    assert stages == [30_720, 102_480, 224_928, 1_064_384, 5_028_352]
    assert parameters(net) == sum(stages)


def test_in_chain_every_level_depends_on_the_level_before_only() -> None:
    net = MobileNetPyramid((8, 12, 16, 24, 32), wiring="in-chain", width=0.35).eval()
    silence(net.projections[1])
    with torch.no_grad():
        one, other = (net(torch.rand(1, 1, 64, 64)) for _ in range(2))
    assert [torch.equal(a, b) for a, b in zip(one, other, strict=True)] == [False] + [True] * 4


def test_projections_do_not_change_mobilenet() -> None:
    net = MobileNetPyramid((8, 12, 16, 24, 32), width=0.35).eval()
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        before = net(x)
        silence(net.projections[1])
        after = net(x)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [
        level != 1 for level in range(5)
    ]


@pytest.mark.parametrize("wiring", ["chained", "", "Projected"])
def test_an_unknown_wiring_is_refused(wiring: Wiring) -> None:
    with pytest.raises(ValueError, match="is unknown; choose 'projected' or 'in-chain'"):
        MobileNetPyramid(wiring=wiring)


def test_a_wrong_number_of_levels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"widths of d1\.\.d5"):
        MobileNetPyramid((32, 64, 128))


# --- Weights --------------------------------------------------------------------------------------


def test_the_parts_compute_what_torchvisions_network_does(
    classifier: nn.Module, weights: Path
) -> None:
    net, x = MobileNetPyramid(weights=weights).eval(), torch.rand(2, 1, 64, 96)
    assert isinstance(classifier.features, nn.Module)
    expected = torchvision_activations(classifier.features.eval(), x)
    outputs = activations(net, x)
    assert [a.shape[1] for a in outputs] == [16, 24, 32, 96, 1280]
    for a, b in zip(outputs, expected, strict=True):
        assert b.std() > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
    with torch.no_grad():
        for d, project, a in zip(net(x), net.projections, expected, strict=True):
            torch.testing.assert_close(d, project(a), rtol=1e-3, atol=1e-4)


def test_in_chain_takes_every_weight(weights: Path) -> None:
    net = MobileNetPyramid(wiring="in-chain", weights=weights)
    state = load_imagenet_weights(weights)
    rest = [value for key, value in state.items() if key != "0.0.weight"]
    outputs = list(net.parts.state_dict().values())[1:]
    assert len(outputs) == len(rest)
    for a, b in zip(outputs, rest, strict=True):
        assert torch.equal(a, b)


def test_a_whole_classifier_is_taken_too(
    classifier: nn.Module, weights: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(classifier.state_dict(), whole)
    one, other = load_imagenet_weights(whole), load_imagenet_weights(str(weights))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_imagenet_downloads_torchvisions_file(
    classifier: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def stored(self: WeightsEnum, *args: object, **kwargs: object) -> Mapping[str, Tensor]:
        calls.append(self)
        return classifier.state_dict()

    monkeypatch.setattr(WeightsEnum, "get_state_dict", stored)
    assert isinstance(classifier.features, nn.Module)
    weights = load_imagenet_weights("imagenet")
    assert calls == [MobileNet_V2_Weights.IMAGENET1K_V1]
    assert weights.keys() == classifier.features.state_dict().keys()


def test_without_a_network_the_error_names_the_address_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(self: WeightsEnum, *args: object, **kwargs: object) -> Mapping[str, Tensor]:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    with pytest.raises(FileNotFoundError) as error:
        MobileNetPyramid(weights="imagenet")
    for words in (MobileNet_V2_Weights.IMAGENET1K_V1.url, "no route", "path as `weights`", "None"):
        assert words in str(error.value)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.pt: no such weights file; pass 'imagene"):
        MobileNetPyramid(weights=tmp_path / "absent.pt")


@pytest.mark.parametrize("content", [b"", b"not weights", b"{}", b"\x80\x02", b"PK\x03\x04", b"]"])
def test_a_file_of_another_format_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.pt: damaged, or not a file of torch"):
        MobileNetPyramid(weights=path)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(share: float, weights: Path) -> None:
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"features\.pt: damaged, or not a file of torch"):
        MobileNetPyramid(weights=weights)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_published_file_is_verified_by_the_checksum_in_its_name(
    zipped: bool, classifier: nn.Module, tmp_path: Path
) -> None:
    """Files of old versions of torch have no other."""
    path = tmp_path / "new.pth"
    torch.save(classifier.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    named = tmp_path / f"mobilenet_v2-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    named.write_bytes(content)
    assert load_imagenet_weights(named)
    content[len(content) // 2] ^= 1
    named.write_bytes(content)
    with pytest.raises(ValueError, match=r"mobilenet_v2-.*damaged \(its checksum is not that in"):
        load_imagenet_weights(named)


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {}, {0: 1}, {"0.0.weight": "text"}])
def test_a_file_without_mobilenets_weights_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"other\.pt: not the weights of torchvision's mobilenet"):
        MobileNetPyramid(weights=path)


@pytest.mark.parametrize("change", ["another width", "one shape", "one missing", "one too many"])
def test_weights_of_another_network_are_refused(
    change: str, classifier: nn.Module, tmp_path: Path
) -> None:
    assert isinstance(classifier.features, nn.Module)
    state = classifier.features.state_dict()
    if change == "another width":
        state = mobilenet_v2(width_mult=0.5).features.state_dict()
    elif change == "one shape":
        state["18.0.weight"] = state["18.0.weight"][:7]
    elif change == "one missing":
        del state["18.0.weight"]
    else:
        state["19.0.weight"] = torch.zeros(1)
    path = tmp_path / "other.pt"
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"other\.pt: not the weights of torchvision's mobilenet"):
        MobileNetPyramid(weights=path)


def test_weights_fit_no_other_width(weights: Path) -> None:
    with pytest.raises(ValueError, match=r"of width 1, not 0\.5; leave out --weights"):
        MobileNetPyramid(weights=weights, width=0.5)


def test_trained_weights_load() -> None:
    path = Path(os.environ.get("STITCHNET_WEIGHTS", CONVERTED))
    if not path.is_file():
        pytest.skip("no ImageNet weights here; STITCHNET_WEIGHTS may name a file of them")
    net = MobileNetPyramid(weights=path).eval()
    outputs = activations(net, torch.rand(2, 1, 64, 64))
    # Trained batch norm keeps activations at a scale of 1; with random weights they fade.
    assert all(a.isfinite().all() and 0.05 < a.std() < 20 for a in outputs)
    features = mobilenet_v2().features
    features.load_state_dict(load_imagenet_weights(path))
    x = torch.rand(1, 1, 64, 64)
    for a, b in zip(activations(net, x), torchvision_activations(features.eval(), x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
