"""Exported files agree with the checkpoint to 1e-4 and contain their description."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.export import write as writing
from pyro_stitchnet.export.metadata import describe, preprocessing_steps
from pyro_stitchnet.export.programs import (
    METADATA,
    onnx_bytes,
    onnx_session,
    torch_bytes,
    trace,
)
from pyro_stitchnet.export.traceable import TraceableModel
from pyro_stitchnet.export.write import TOLERANCE, write
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOut, ReadOutOptions, probabilities, segment
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint

INFO = {
    "dataset": {"preprocessing": asdict(Preprocessing(size=128))},
    "patients": {"train": ["secret"]},
    "commit": "abc",
}


def like_trained(name: str) -> StitchNet:
    """A model with random parameters whose output depends on the slice and is stable in float32.

    The initial group norm amplifies rounding: the output for a slice alone and in a batch differs
    by 1e-3 in eager mode. So do batch norm layers with the averages of a batch.
    """
    net = StitchNet(preset(name).model)
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.normal_(module.bias, 0, 0.5)
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.25)
    return net.eval()


def slices(n: int, side: int) -> dict[str, Tensor]:
    """Slices (N, 1, H, W), random and phantoms."""
    phantoms = phantom_slices(range(n), 1, size=side, seed=0).images
    return {"random": torch.rand(n, 1, side, side), "phantoms": phantoms[:, None]}


def check_parity(model: TraceableModel, run: Callable[[Tensor], Tensor], side: int) -> None:
    options = ReadOutOptions(model.read_out, samples=0)
    for n in (1, 2, 5):
        for kind, image in slices(n, side).items():
            expected = probabilities(model.net, image[:, 0], options)
            with torch.no_grad():
                output = run(image)
            assert (output - expected).abs().max() < TOLERANCE, (n, kind)
            if n > 1:  # the output depends on the slice
                assert (output[0] - output[1]).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("name", "read_out"),
    [("tiny", "prior"), ("tiny", "posterior"), ("article", "prior"), ("guided", "guide"),
     ("guided", "prior"), ("guided", "posterior")],
)  # fmt: skip
def test_output_is_that_of_segment_without_samples(name: str, read_out: ReadOut) -> None:
    net = like_trained(name)
    x = torch.rand(2, 64, 64)
    expected = segment(net, x, ReadOutOptions(read_out, samples=0)).probabilities
    with torch.no_grad():
        output = TraceableModel(net, read_out)(x[:, None])
    assert torch.equal(output, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["article", "guided"])  # batch norm; group norm and a classifier
def test_parity_of_torch_and_onnx(name: str) -> None:
    side = 128 if name == "guided" else 64
    model = TraceableModel(like_trained(name), "posterior")  # includes the other read-outs
    program = trace(model, side)
    check_parity(model, program.module(), side)
    check_parity(model, onnx_session(onnx_bytes(program, {})), side)


@pytest.mark.slow
def test_dynamic_sizes() -> None:
    model = TraceableModel(like_trained("tiny"))
    program = trace(model).module()
    for shape in ((1, 1, 64, 96), (2, 1, 160, 64)):
        image = torch.rand(shape)
        with torch.no_grad():
            assert (program(image) - model(image)).abs().max() < TOLERANCE


class LogGamma(nn.Module):
    """log Gamma of an image."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.lgamma(image)


def test_log_gamma_in_onnx_agrees_with_torch() -> None:
    x = torch.logspace(-7, 3, 5000)
    program = torch.export.export(LogGamma(), (x,))
    answer = onnx_session(onnx_bytes(program, {}))(x)
    assert answer.dtype == torch.float32
    assert torch.allclose(answer.double(), torch.lgamma(x.double()), rtol=2e-7, atol=1e-9)


class Small(TraceableModel):
    """A model that is traced quickly."""

    def __init__(self, *_: object) -> None:
        super().__init__(StitchNet(preset("tiny").model))

    def forward(self, image: Tensor) -> Tensor:
        scores = [image * k for k in range(4)]
        return torch.cat(scores, 1).softmax(1)


def test_files_contain_their_description() -> None:
    small = Small()
    description = describe(small, INFO, "runs/somewhere/model.pt", None)
    assert description["output"]["labels"] == ["background", "healthy", "ggo", "consolidation"]
    assert description["preprocessing"]["size"] == 128
    assert description["checkpoint"] == "model.pt"
    assert description["read_out"] == "posterior"
    assert "secret" not in json.dumps(description)
    program = trace(small)
    extra = {METADATA: ""}
    torch.export.load(io.BytesIO(torch_bytes(program, description)), extra_files=extra)
    description = json.loads(json.dumps(description))  # tuples become lists
    assert json.loads(extra[METADATA]) == description
    model = onnx.load_from_string(onnx_bytes(program, description))
    assert {p.key: json.loads(p.value) for p in model.metadata_props} == description
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert model.graph.input[0].name == "image"
    assert [d.dim_value for d in dims[1:2]] == [1]
    assert dims[0].dim_param  # any number of slices


def test_preprocessing_is_described_in_words() -> None:
    text = " ".join(preprocessing_steps(asdict(Preprocessing(size=96, zero_outside=True))))
    assert "-1250 to 250" in text
    assert "96 x 96" in text
    assert "black outside" in text
    assert "'classical'" in text
    assert "lung field" not in " ".join(preprocessing_steps(asdict(Preprocessing(lungs="none"))))
    assert "not recorded" in preprocessing_steps(None)[0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    checkpoint.save(StitchNet(preset("tiny").model), tmp_path / "model.pt", **INFO)
    return tmp_path / "model.pt"


def test_a_file_runs_without_this_package_and_pyro(model: Path, tmp_path: Path) -> None:
    net = like_trained("tiny")
    checkpoint.save(net, model, **INFO)
    exported = write(model, tmp_path / "s.pt2", size=64)
    assert exported.difference <= TOLERANCE
    image = torch.rand(5, 1, 64, 64)
    torch.save(image, tmp_path / "image.pt")
    program = """
import sys, torch
sys.modules["pyro"] = sys.modules["pyro_stitchnet"] = None
with torch.no_grad():
    torch.save(torch.export.load("s.pt2").module()(torch.load("image.pt")), "output.pt")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)
    expected = probabilities(net, image[:, 0], ReadOutOptions(samples=0))
    assert (torch.load(tmp_path / "output.pt") - expected).abs().max() < TOLERANCE


def test_invalid_exports_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "there.pt2").write_text("mine")
    with pytest.raises(FileExistsError, match=r"there\.pt2: exists"):
        write(model, tmp_path / "there.pt2")
    assert (tmp_path / "there.pt2").read_text() == "mine"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write(model, tmp_path / "no" / "s.pt2")
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        write(model, tmp_path / "s.pt2", format="onnx")
    with pytest.raises(ValueError, match="multiple of 32"):
        write(model, tmp_path / "s.pt2", size=100)
    with pytest.raises(ValueError, match="no q"):
        write(model, tmp_path / "s.pt2", read_out="guide")
    with pytest.raises(ValueError, match="read_out 'mean' is unknown"):
        write(model, tmp_path / "s.pt2", read_out="mean")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        write(tmp_path / "none.pt", tmp_path / "s.pt2")
    model.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged"):
        write(model, tmp_path / "s.pt2")
    torch.save({"format": "another"}, model)
    with pytest.raises(ValueError, match="not a stitchnet checkpoint"):
        write(model, tmp_path / "s.pt2")
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt", "there.pt2"}


class Undefined(Small):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) * float("nan")


@pytest.mark.parametrize("other", [Small, Undefined])
def test_a_file_that_differs_from_the_checkpoint_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: type[Small]
) -> None:
    monkeypatch.setattr(writing, "trace", lambda *_: trace(other(), 64))
    with pytest.raises(FloatingPointError, match="differ"):
        write(model, tmp_path / "s.pt2", size=64)
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt"}
