"""Configuration: presets, YAML files over them, and what is refused with a hint."""

from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from pyro_stitchnet.presets import preset
from pyro_stitchnet.training.config import TrainConfig, from_yaml, plain, to_yaml


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_overrides_the_preset_that_it_names(tmp_path: Path) -> None:
    path = written(
        tmp_path, "preset: tiny\ndata: d\nsteps: 7\noptimiser: {learning_rate: 1e-3}\npatience: 2\n"
    )
    config = from_yaml(path)
    tiny = preset("tiny")
    assert (config.model, config.objective) == (tiny.model, tiny.objective)
    assert config.optimiser == replace(tiny.optimiser, learning_rate=1e-3)
    assert (config.data, config.steps, config.patience) == (Path("d"), 7, 2)
    assert config.out is tyro.MISSING


def test_a_preset_on_the_command_line_is_stronger_than_the_files(tmp_path: Path) -> None:
    path = written(tmp_path, "preset: tiny\nsteps: 7\n")
    config = from_yaml(path, "article")
    assert (config.model, config.steps) == (preset("article").model, 7)
    assert from_yaml().model == preset("guided").model


def test_what_a_run_writes_makes_the_same_run(tmp_path: Path) -> None:
    config = TrainConfig(
        Path("d"), Path("o"), **vars(preset("tiny")), label_budget=3, precision="bf16-mixed"
    )
    path = written(tmp_path, to_yaml(replace(config, resume=True)))
    assert from_yaml(path) == config
    assert plain(config)["model"]["channels"] == [16, 24, 32, 48, 64]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz: 7", "unknown key 'stepz'; did you mean 'steps'"),
        ("learning_rate: 1", "did you mean 'optimiser.learning_rate'"),
        ("optimizer: {learning_rate: 1}", "did you mean 'optimiser'"),
        ("optimiser: {learning_rat: 1}", "did you mean 'optimiser.learning_rate'"),
        ("qqqq: 1", "see `stitchnet train --help`"),
        ("optimiser: {learning_rate: fast}", "optimiser.learning_rate: .*number"),
        ("precision: 64", "precision: .*bf16-mixed"),
        ("optimiser: {ema: 2}", "ema in"),
        ("optimiser: 3", "'optimiser' must be a mapping"),
        ("preset: big", "preset 'big' is unknown; choose one of article"),
        ("- steps", "must be a mapping like"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_file_is_named_with_the_remedy(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"run\.yaml: .*{words}"):
        from_yaml(written(tmp_path, text))


def test_an_empty_file_says_nothing_and_a_missing_one_is_named(tmp_path: Path) -> None:
    assert from_yaml(written(tmp_path, "")).steps == from_yaml().steps
    with pytest.raises(FileNotFoundError, match=r"none\.yaml: no such file"):
        from_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["steps", "accumulate", "processes", "keep_last", "patience"])
def test_numbers_out_of_range(name: str) -> None:
    config = TrainConfig(Path("d"), Path("o"))
    config.check()
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        replace(config, **{name: 0}).check()  # type: ignore[arg-type]
