"""The commands `sample`, `styles` and `explain`, and their messages about wrong input."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.phantoms.phantom import phantom_patient, phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime import torch_files
from pyro_stitchnet.training import checkpoint

STEPS = asdict(Preprocessing(size=64, lungs="none"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.manual_seed(0)
    checkpoint.save(StitchNet(preset("guided").model), path, dataset={"preprocessing": STEPS})
    return path


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    path = tmp_path / "slice.png"
    grey = phantom_patient(1, 1, size=128)[0].image
    Image.fromarray((255 * grey).round().astype(np.uint8)).save(path)
    return path


def test_explain_preprocesses_the_slice_and_writes_a_page(
    stitchnet: Callable[..., None],
    refused: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    model: Path,
    image_file: Path,
    tmp_path: Path,
) -> None:
    stitchnet("explain", model, image_file, "--out", tmp_path / "e", "--draws", 2)
    assert "evidence lower bound" in capsys.readouterr().out
    text = (tmp_path / "e" / "explain.html").read_text(encoding="utf-8")
    assert "slice.png" in text
    assert (tmp_path / "e" / "explain.png").stat().st_size > 10_000
    again = refused("explain", model, image_file, "--out", tmp_path / "e")
    assert "choose another --out" in again


def test_styles_and_sample_write_figures_and_arrays(
    stitchnet: Callable[..., None], model: Path, image_file: Path, tmp_path: Path
) -> None:
    stitchnet("styles", model, image_file, "--out", tmp_path / "s", "--draws", 2,
              "--noise")  # fmt: skip
    with np.load(tmp_path / "s" / "styles.npz") as kept:
        assert kept["styles"].shape == (2, 4, 64, 64)
        assert kept["labels"].shape == kept["stitched"].shape == (2, 64, 64)
    assert (tmp_path / "s" / "styles.png").exists()
    for name, temperature in (("all", 1), ("none", 0)):
        stitchnet("sample", model, "--out", tmp_path / name, "--number", 2,
                  "--temperature", temperature)  # fmt: skip
        with np.load(tmp_path / name / "samples.npz") as kept:
            equal = np.allclose(kept["styles"][0], kept["styles"][1])
            assert equal == (name == "none")
            assert kept["stitched"].shape == (2, 64, 64)


def test_wrong_input_is_one_line(
    refused: Callable[..., str], model: Path, image_file: Path, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "never"]
    grey = np.asarray(Image.open(image_file))
    Image.fromarray(np.stack([grey, 255 - grey, grey], -1)).save(tmp_path / "colour.png")
    Image.fromarray(grey[:100, :100]).save(tmp_path / "odd.png")
    broken = grey / 255
    broken[0] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    np.save(tmp_path / "three.npy", np.stack([grey] * 3))
    other_format = tmp_path / "other.pt"
    torch.save({"weights": 1}, other_format)
    cases: list[tuple[list[object], str]] = [
        ([model, tmp_path / "colour.png"], "not grey"),
        ([model, tmp_path / "odd.png", "--prepared"], "resize or pad to 64 or 128"),
        ([model, tmp_path / "nan.npy"], "not a number"),
        ([model, tmp_path / "three.npy"], "choose one by --slice 0 to 2"),
        ([model, tmp_path / "none.png"], "missing"),
        ([tmp_path / "none.pt", image_file], "no such checkpoint"),
        ([other_format, image_file], "not a stitchnet checkpoint"),
    ]
    for number, (arguments, message) in enumerate(cases):  # both commands read slices alike
        assert message in refused(("styles", "explain")[number % 2], *arguments, *out)
    (tmp_path / "empty").mkdir()
    assert "no prepared dataset" in refused(
        "explain", model, image_file, *out, "--against", tmp_path / "empty"
    )
    assert "levels 1 to 5" in refused("sample", model, *out, "--levels", "1", "6")
    assert "64 or 128" in refused("sample", model, *out, "--size", 96)
    assert not (tmp_path / "never").exists()


def test_weights_of_another_preset_are_refused(
    refused: Callable[..., str], image_file: Path, tmp_path: Path
) -> None:
    """A checkpoint whose weights do not fit its configuration."""
    mixed = tmp_path / "mixed.pt"
    checkpoint.save(StitchNet(preset("tiny").model), mixed)
    content = checkpoint.read(mixed, 1)
    content["config"] = asdict(preset("guided").model)
    torch_files.write(content, mixed)
    message = refused("explain", mixed, image_file, "--out", tmp_path / "never")
    assert "do not fit the networks" in message
    content["config"]["depth"] = 3
    torch_files.write(content, mixed)
    message = refused("explain", mixed, image_file, "--out", tmp_path / "never")
    assert "another version" in message


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of labelled volumes of three patients in Hounsfield units."""
    root = tmp_path_factory.mktemp("volumes")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for patient in range(3):
        made = phantom_slices([patient], 2, size=64)
        np.save(root / "images" / f"{patient}.npy", made.images.numpy() * 1500 - 1250)
        np.save(root / "masks" / f"{patient}.npy", made.labels().numpy().astype(np.uint8))
    rows = [f"{patient}.npy,p{patient}" for patient in range(3)]
    (root / "index.csv").write_text("\n".join(["file,patient", *rows]) + "\n")
    steps = Preprocessing(size=64, lungs="none")
    return prepare([str(root)], root / "dataset", preprocessing=steps, progress=False).folder


def test_data_of_another_window_are_refused(
    refused: Callable[..., str], volumes: Path, image_file: Path, tmp_path: Path
) -> None:
    model, out = tmp_path / "model.pt", ["--out", tmp_path / "never"]
    steps = {**STEPS, "window": (-1000.0, 400.0)}
    checkpoint.save(StitchNet(preset("tiny").model), model, dataset={"preprocessing": steps})
    for command in (
        ["evaluate", model, volumes],
        ["styles", model, volumes, "--slice", 0],
        ["explain", model, volumes, "--slice", 0],
        ["explain", model, image_file, "--against", volumes],
        ["train", volumes, "--preset", "tiny", "--folds", 0, "--start", model],
    ):
        message = refused(*command, *out)
        assert f"{volumes}: was prepared with --window -1250 250, but {model} was" in message
        assert "prepare the data again with --window -1000 400" in message
    assert not (tmp_path / "never").exists()


def test_patients_of_the_model_to_start_from_are_seen(
    stitchnet: Callable[..., None],
    refused: Callable[..., str],
    volumes: Path,
    image_file: Path,
    tmp_path: Path,
) -> None:
    model = tmp_path / "model.pt"
    record = {
        "patients": {"labelled": ["q"], "test": ["p2"], "start": ["p0", "p1"]},
        "dataset": {"preprocessing": {**STEPS, "size": 128}},
    }
    checkpoint.save(StitchNet(preset("tiny").model), model, **record)
    stitchnet("evaluate", model, volumes, "--out", tmp_path / "all")
    info = json.loads((tmp_path / "all" / "table.json").read_text())["info"]
    assert info["slices_of_patients_seen_before_test"] == 4
    against = ["--against", volumes, "--out", tmp_path / "never"]
    message = refused("explain", model, image_file, *against)
    assert "holds 2 slices of patients that the model was not trained on" in message
