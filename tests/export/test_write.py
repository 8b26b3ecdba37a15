"""Exported files say what the checkpoint says, to 1e-4, and carry how to feed them."""

import io
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.export import write as writing
from pyro_stitchnet.export.metadata import describe, steps
from pyro_stitchnet.export.programs import (
    METADATA,
    log_gamma,
    onnx_bytes,
    session,
    torch_bytes,
    trace,
)
from pyro_stitchnet.export.traceable import TraceableSegmenter
from pyro_stitchnet.export.write import TOLERANCE, write
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import ReadOut, segment
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint

INFO = {
    "dataset": {"preprocessing": asdict(Preprocessing(size=128))},
    "patients": {"train": ["secret"]},
    "commit": "abc",
}


def like_trained(name: str) -> StitchNet:
    """Random weights and averages, but an answer that heeds the slice and float32 that suffices.

    As initialised, group norm scales up rounding: the same slice alone and in a batch then differ
    by 1e-3 in eager mode; so do batch norm's layers with the averages of a batch.
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


def check_parity(segmenter: TraceableSegmenter, run: object, side: int) -> None:
    for n in (1, 2, 5):
        for what, image in slices(n, side).items():
            answer = segment(segmenter.net, image[:, 0], samples=0, read_out=segmenter.read_out)
            with torch.no_grad():
                found = run(image)  # type: ignore[operator]
            worst = (found - answer.probabilities).abs().max()
            assert worst < TOLERANCE, (n, what)
            if n > 1:
                assert (found[0] - found[1]).abs().max() > 10 * TOLERANCE  # it heeds the slice


@pytest.mark.parametrize(
    ("name", "read_out"),
    [("tiny", "prior"), ("tiny", "posterior"), ("article", "prior"), ("guided", "guide"),
     ("guided", "prior"), ("guided", "posterior")],
)  # fmt: skip
def test_segmenter_is_the_posterior_at_the_means(name: str, read_out: ReadOut) -> None:
    net = like_trained(name)
    x = torch.rand(2, 64, 64)
    answer = segment(net, x, samples=0, read_out=read_out)
    with torch.no_grad():
        found = TraceableSegmenter(net, read_out)(x[:, None])
    assert torch.allclose(found, answer.probabilities, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "article", "guided"])
def test_parity_of_torch_and_onnx(name: str) -> None:
    side = 128 if name == "guided" else 64
    segmenter = TraceableSegmenter(
        like_trained(name), "posterior"
    )  # of which the other two are parts
    program = trace(segmenter, side)
    check_parity(segmenter, program.module(), side)
    check_parity(segmenter, session(onnx_bytes(program, {})), side)


@pytest.mark.slow
def test_free_sizes() -> None:
    segmenter = TraceableSegmenter(like_trained("tiny"))
    program = trace(segmenter).module()
    for shape in ((1, 1, 64, 96), (2, 1, 160, 64)):
        image = torch.rand(shape)
        with torch.no_grad():
            assert (program(image) - segmenter(image)).abs().max() < TOLERANCE


def test_log_gamma_is_torchs() -> None:
    x = torch.logspace(-7, 3, 5000, dtype=torch.float64)
    assert torch.allclose(log_gamma(x), torch.lgamma(x), rtol=1e-9, atol=1e-9)
    assert log_gamma(x.float()).dtype == torch.float32


class Small(TraceableSegmenter):
    """A segmenter that is traced in no time."""

    def __init__(self, *_: object) -> None:
        super().__init__(StitchNet(preset("tiny").model))

    def forward(self, image: Tensor) -> Tensor:
        scores = [image * k for k in range(4)]
        return torch.cat(scores, 1).softmax(1)


def test_files_carry_their_description() -> None:
    small = Small()
    about = describe(small, INFO, "runs/somewhere/model.pt", None)
    assert about["output"]["labels"] == ["background", "healthy", "ggo", "consolidation"]
    assert about["preprocessing"]["size"] == 128
    assert about["checkpoint"] == "model.pt"
    assert about["read_out"] == "prior"
    assert "secret" not in json.dumps(about)
    program = trace(small)
    extra = {METADATA: ""}
    torch.export.load(io.BytesIO(torch_bytes(program, about)), extra_files=extra)
    about = json.loads(json.dumps(about))  # tuples become lists
    assert json.loads(extra[METADATA]) == about
    model = onnx.load_from_string(onnx_bytes(program, about))
    assert {p.key: json.loads(p.value) for p in model.metadata_props} == about
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert model.graph.input[0].name == "image"
    assert [d.dim_value for d in dims[1:2]] == [1]
    assert dims[0].dim_param  # any number of slices


def test_steps_in_words() -> None:
    said = " ".join(steps(asdict(Preprocessing(size=96, zero_outside=True))))
    assert "-1250 to 250" in said
    assert "96 x 96" in said
    assert "black outside" in said
    assert "'classical'" in said
    assert "lung field" not in " ".join(steps(asdict(Preprocessing(lungs="none"))))
    assert "not recorded" in steps(None)[0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    checkpoint.save(StitchNet(preset("tiny").model), tmp_path / "model.pt", **INFO)
    return tmp_path / "model.pt"


def test_a_file_runs_where_this_package_and_pyro_are_not(model: Path, tmp_path: Path) -> None:
    net = like_trained("tiny")
    checkpoint.save(net, model, **INFO)
    written = write(model, tmp_path / "s.pt2", size=64)
    assert written.difference <= TOLERANCE
    image = torch.rand(5, 1, 64, 64)
    torch.save(image, tmp_path / "image.pt")
    program = """
import sys, torch
sys.modules["pyro"] = sys.modules["pyro_stitchnet"] = None
with torch.no_grad():
    torch.save(torch.export.load("s.pt2").module()(torch.load("image.pt")), "answer.pt")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)
    answer = segment(net, image[:, 0], samples=0).probabilities
    assert (torch.load(tmp_path / "answer.pt") - answer).abs().max() < TOLERANCE


def test_what_cannot_be_exported_is_refused(model: Path, tmp_path: Path) -> None:
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
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        write(tmp_path / "none.pt", tmp_path / "s.pt2")
    model.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged"):
        write(model, tmp_path / "s.pt2")
    torch.save({"format": "another"}, model)
    with pytest.raises(ValueError, match="not a stitchnet checkpoint"):
        write(model, tmp_path / "s.pt2")
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt", "there.pt2"}


def test_what_differs_from_the_checkpoint_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "trace", lambda *_: trace(Small()))  # of another network
    with pytest.raises(FloatingPointError, match="differ"):
        write(model, tmp_path / "s.pt2")
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt"}
