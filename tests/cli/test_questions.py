"""The commands `sample`, `styles` and `explain`, and what they say of bad input."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_stitchnet.data.phantoms.phantom import phantom_patient
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint

STEPS = asdict(Preprocessing(size=64, lungs="none"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.manual_seed(0)
    checkpoint.save(StitchNet(preset("guided").model), path, dataset={"preprocessing": STEPS})
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "slice.png"
    grey = phantom_patient(1, 1, size=128)[0].image
    Image.fromarray((255 * grey).round().astype(np.uint8)).save(path)
    return path


def test_explain_resizes_as_training_did_and_writes_a_page(
    stitchnet: Callable[..., None],
    refused: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    model: Path,
    picture: Path,
    tmp_path: Path,
) -> None:
    stitchnet("explain", model, picture, "--out", tmp_path / "e", "--samples", 2)
    assert "evidence lower bound" in capsys.readouterr().out
    text = (tmp_path / "e" / "explain.html").read_text(encoding="utf-8")
    assert "slice.png" in text
    assert (tmp_path / "e" / "explain.png").stat().st_size > 10_000
    again = refused("explain", model, picture, "--out", tmp_path / "e")
    assert "choose another --out" in again


def test_styles_and_samples_write_pictures_and_arrays(
    stitchnet: Callable[..., None], model: Path, picture: Path, tmp_path: Path
) -> None:
    stitchnet("styles", model, picture, "--out", tmp_path / "s", "--draws", 2,
              "--noise")  # fmt: skip
    with np.load(tmp_path / "s" / "styles.npz") as kept:
        assert kept["styles"].shape == (2, 4, 64, 64)
        assert kept["labels"].shape == kept["stitched"].shape == (2, 64, 64)
    assert (tmp_path / "s" / "styles.png").exists()
    for name, heat in (("all", 1), ("none", 0)):
        stitchnet("sample", model, "--out", tmp_path / name, "--number", 2,
                  "--temperature", heat)  # fmt: skip
        with np.load(tmp_path / name / "samples.npz") as kept:
            alike = np.allclose(kept["styles"][0], kept["styles"][1])
            assert alike == (name == "none")
            assert kept["stitched"].shape == (2, 64, 64)


def test_bad_input_is_one_line(
    refused: Callable[..., str], model: Path, picture: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "never"]
    grey = np.asarray(Image.open(picture))
    Image.fromarray(np.stack([grey, 255 - grey, grey], -1)).save(tmp_path / "colour.png")
    Image.fromarray(grey[:100, :100]).save(tmp_path / "odd.png")
    broken = grey / 255
    broken[0] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    np.save(tmp_path / "three.npy", np.stack([grey] * 3))
    alien = tmp_path / "alien.pt"
    torch.save({"weights": 1}, alien)
    cases: list[tuple[list[object], str]] = [
        ([model, tmp_path / "colour.png"], "not grey"),
        ([model, tmp_path / "odd.png", "--prepared"], "resize or pad to 64 or 128"),
        ([model, tmp_path / "nan.npy"], "not a number"),
        ([model, tmp_path / "three.npy"], "say which by --slice 0 to 2"),
        ([model, tmp_path / "none.png"], "missing"),
        ([tmp_path / "none.pt", picture], "no such checkpoint"),
        ([alien, picture], "not a stitchnet checkpoint"),
    ]
    for verb in ("styles", "explain"):
        for arguments, said in cases:
            assert said in refused(verb, *arguments, *out)
    (tmp_path / "empty").mkdir()
    assert "no prepared dataset" in refused(
        "explain", model, picture, *out, "--against", tmp_path / "empty"
    )
    assert "levels 1 to 5" in refused("sample", model, *out, "--levels", "1", "6")
    assert "64 or 128" in refused("sample", model, *out, "--size", 96)
    assert not (tmp_path / "never").exists()


def test_another_presets_weights_are_said_to_be_so(
    refused: Callable[..., str], picture: Path, tmp_path: Path
) -> None:
    """A checkpoint whose weights are not of the networks that it describes."""
    mixed = tmp_path / "mixed.pt"
    checkpoint.save(StitchNet(preset("tiny").model), mixed)
    content = checkpoint.read(mixed, 1)
    content["config"] = asdict(preset("guided").model)
    checkpoint.write(content, mixed)
    said = refused("explain", mixed, picture, "--out", tmp_path / "never")
    assert "not of the networks" in said
    content["config"]["depth"] = 3
    checkpoint.write(content, mixed)
    said = refused("explain", mixed, picture, "--out", tmp_path / "never")
    assert "another version" in said
