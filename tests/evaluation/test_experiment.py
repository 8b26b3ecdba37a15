"""A run with its curves, its TensorBoard log and its test scores."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.evaluation.evaluate import WRITTEN
from pyro_stitchnet.evaluation.experiment import BITS, experiment
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.config import TrainConfig


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainConfig]:
    """``(out, preset, **fields)``: a run of one step on six phantoms."""
    root = tmp_path_factory.mktemp("experiment")
    write_folder(phantom_slices(6, 1, size=64), root / "ct")
    steps = Preprocessing(size=64, lungs="none")
    prepare([str(root / "ct")], root / "data", preprocessing=steps, progress=False)

    def make(out: Path, name: str = "tiny", **fields: object) -> TrainConfig:
        base = TrainConfig(
            data=root / "data", out=out, **vars(preset(name)), steps=1, log_every=1,
            progress=False, tensorboard=False, device="cpu",
        )  # fmt: skip
        return replace(base, **fields)  # type: ignore[arg-type]

    return make


def test_a_run_is_drawn_and_evaluated_on_its_test_patients(
    config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    out = experiment(config(tmp_path / "run", tensorboard=True))
    assert (out / "curves.png").stat().st_size > 1000
    assert {path.name for path in (out / "test").iterdir()} == set(WRITTEN)
    assert list((out / "tensorboard").iterdir())
    record = json.loads((out / "run.json").read_text())
    scores = pd.read_csv(out / "test" / "scores.csv")
    assert set(scores["patient"]) == set(record["patients"]["test"])
    info = json.loads((out / "test" / "table.json").read_text())["info"]
    assert info["best_step"] == record["best_step"] == 1
    assert info["coverage"]["text"] == f"{scores['name'].nunique()} of 2 slices"


def test_without_folds_there_is_no_test(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    out = experiment(config(tmp_path / "run", folds=0))
    assert (out / "curves.png").exists()
    assert not (out / "test").exists()
    assert not (out / "tensorboard").exists()


def test_an_svae_has_bits_per_dimension(
    config: Callable[..., TrainConfig],
    tmp_path: Path,
    stitchnet: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = config(tmp_path / "run", "svae")
    small = replace(
        small, model=replace(preset("tiny-logistic").model, stitched=False), tensorboard=True
    )
    out = experiment(small)
    table = pd.read_csv(out / "test" / BITS)
    record = json.loads((out / "run.json").read_text())
    assert set(table["patient"]) == set(record["patients"]["test"])
    assert (table["bits"] > 0).all()
    stitchnet("train", small.data, "--config", out / "config.yaml", "--out", tmp_path / "again")
    printed = capsys.readouterr().out
    assert f"bits per dimension of {len(table)} test slices: {table['bits'].mean():.4f}" in printed
