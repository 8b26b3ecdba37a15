"""Configurations: presets, YAML files over them, and what is refused with a hint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tyro

from pyro_stitchnet.model.label_terms import (
    LABEL_TERMS,
    AnyLabelTerm,
    Enumerated,
    Expected,
    Guided,
    Marginal,
    Relaxed,
    Unlabelled,
)
from pyro_stitchnet.presets import PRESETS, preset
from pyro_stitchnet.training.config import (
    TrainConfig,
    from_yaml,
    merge_label_term,
    plain,
    to_yaml,
)


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


def test_a_preset_on_the_command_line_replaces_that_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "preset: tiny\nsteps: 7\n")
    config = from_yaml(path, "article")
    assert (config.model, config.steps) == (preset("article").model, 7)
    assert from_yaml().model == preset("guided").model


@pytest.mark.parametrize("name", PRESETS)
def test_the_configuration_of_a_run_is_read_back(name: str, tmp_path: Path) -> None:
    config = TrainConfig(Path("d"), Path("o"), **vars(preset(name)), precision="bf16-mixed")
    config.check()
    config = replace(config, label_budget=3, start=Path("m.pt"), minutes=0.5)
    path = written(tmp_path, to_yaml(replace(config, resume=True)))
    assert from_yaml(path) == config
    assert plain(config)["model"]["channels"] == list(config.model.channels)


# Numbers of every label term at other values than their defaults.
CHANGED: dict[str, AnyLabelTerm] = {
    "enumerated": Enumerated(label_weight=3),
    "marginal": Marginal(label_weight=3),
    "relaxed": Relaxed(label_weight=3, temperature=0.25),
    "expected": Expected(focal_weight=7, focal_gamma=3),
    "guided": Guided(
        label_weight=3,
        dice_weight=0.5,
        guide_weight=0,
        consistency_weight=0.125,
        pseudo_labels="posterior",
        confidence=0.9,
        bound_every=3,
    ),
    "unlabelled": Unlabelled(),
}


@pytest.mark.parametrize("kind", LABEL_TERMS)
@pytest.mark.parametrize("start", ["tiny", "guided"])
def test_a_label_term_is_read_back(kind: str, start: str, tmp_path: Path) -> None:
    """Whatever the label term of the preset is."""
    term = CHANGED[kind]
    assert all(value != vars(LABEL_TERMS[kind]())[name] for name, value in vars(term).items())
    base = TrainConfig(Path("d"), Path("o"), **vars(preset(start)))
    config = replace(base, objective=replace(base.objective, labels=term))
    text = f"preset: {start}\n{to_yaml(config)}"
    read = from_yaml(written(tmp_path, text))
    assert read == config
    assert type(read.objective.labels) is type(term)
    assert plain(config)["objective"]["labels"] == {"kind": kind, **vars(term)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("relaxed", Relaxed(label_weight=50)),
        ({"kind": "relaxed", "temperature": 0.1}, Relaxed(label_weight=50, temperature=0.1)),
        ({"kind": "relaxed", "label_weight": 2}, Relaxed(label_weight=2)),
        ("guided", Guided()),
        ({"label_weight": 2}, Marginal(label_weight=2)),
        ("marginal", Marginal(label_weight=50)),
        ({"kind": "enumerated"}, Enumerated(label_weight=50)),
    ],
)
def test_a_label_term_is_changed_number_by_number(
    values: str | dict[str, Any], expected: AnyLabelTerm
) -> None:
    """Another kind has its own defaults, but for the label weight that three of them share."""
    merged = merge_label_term(Marginal(label_weight=50), values)
    assert merged == expected
    assert type(merged) is type(expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("guessed", "labels 'guessed' is unknown; choose one of enumerated, marginal"),
        ({"kind": "expected", "label_weight": 1}, "'expected' have no option 'label_weight'"),
        ({"temperature": 1}, "'marginal' have no option 'temperature'; they have label_weight"),
        ({"kind": "unlabelled", "label_weight": 1}, "they have none"),
        ({"label_weight": "much"}, "label_weight: .*number"),
        ({"label_weight": -1}, "label_weight must be at least 0"),
        ({"kind": ["relaxed"]}, "is unknown"),
        (3, "must be a name or a mapping"),
        (None, "must be a name or a mapping"),
    ],
)
def test_a_wrong_label_term_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge_label_term(Marginal(), values)


def test_a_file_changes_the_label_term_only(tmp_path: Path) -> None:
    text = "preset: guided\nobjective: {labels: {consistency_weight: 0.5}, free_bits: 0.5}\n"
    objective, guided = from_yaml(written(tmp_path, text)).objective, preset("guided").objective
    assert isinstance(guided.labels, Guided)
    labels = replace(guided.labels, consistency_weight=0.5)
    assert objective == replace(guided, labels=labels, free_bits=0.5)


@pytest.mark.parametrize(("model", "labels"), [("tiny", Unlabelled()), ("svae", Marginal())])
def test_the_label_term_must_fit_the_model(model: str, labels: AnyLabelTerm) -> None:
    config = TrainConfig(Path("d"), Path("o"), **vars(preset(model)))
    config.check()
    wrong = replace(config, objective=replace(config.objective, labels=labels))
    with pytest.raises(ValueError, match="'unlabelled' belong to the SVAE alone"):
        wrong.check()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stepz: 7", "unknown key 'stepz'; did you mean 'steps'"),
        ("learning_rate: 1", "did you mean 'optimiser.learning_rate'"),
        ("optimizer: {learning_rate: 1}", "did you mean 'optimiser'"),
        ("optimiser: {learning_rat: 1}", "did you mean 'optimiser.learning_rate'"),
        ("qqqq: 1", "unknown key .qqqq.; choose from data, out, model"),
        ("preset: [a]", "preset must be a name, got"),
        ("optimiser: {learning_rate: fast}", "optimiser.learning_rate: .*number"),
        ("precision: 64", "precision: .*bf16-mixed"),
        ("optimiser: {ema: 2}", "ema must be below 1, got 2"),
        ("optimiser: 3", "'optimiser' must be a mapping"),
        ("preset: big", "preset 'big' is unknown; choose one of guided"),
        ("objective: {labels: guessed}", "labels 'guessed' is unknown"),
        ("objective: {labels: {kind: relaxed, weight: 1}}", "have no option 'weight'"),
        ("objective: {kl_weight: 0}", "kl_weight must be above 0"),
        ("model: {stitched: false}", "need labels; set stitched"),
        ("- steps", "must be a mapping, one line per field"),
        ("a: [", "not YAML"),
        ("steps: 1\nsteps: 2", "'steps' occurs twice"),
        ("model: {width: 1, width: 2}", "'width' occurs twice"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_remedy(
    text: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"run\.yaml: .*{words}"):
        from_yaml(written(tmp_path, text))


def test_an_empty_file_changes_nothing_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    assert from_yaml(written(tmp_path, "")).steps == from_yaml().steps
    with pytest.raises(FileNotFoundError, match=r"none\.yaml: no such file"):
        from_yaml(tmp_path / "none.yaml")


def test_a_model_without_labels_has_no_budget_of_them() -> None:
    config = TrainConfig(Path("d"), Path("o"), **vars(preset("svae")), label_budget=3)
    with pytest.raises(ValueError, match="label_budget is for models with labels"):
        config.check()


@pytest.mark.parametrize("name", ["steps", "accumulate", "processes", "keep_last", "patience"])
def test_numbers_out_of_range(name: str) -> None:
    config = TrainConfig(Path("d"), Path("o"))
    config.check()
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        replace(config, **{name: 0}).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"affine": True, "augment": False}, "affine is an augmentation"),
        ({"patience": 3, "folds": 0}, "patience counts the validations"),
        ({"patience": 3, "fast": True}, "patience counts the validations"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TrainConfig(Path("d"), Path("o")), **changes).check()


@pytest.mark.parametrize(("name", "labels"), [("guided", Marginal()), ("article", Guided())])
def test_a_classifier_and_guided_labels_need_each_other(name: str, labels: AnyLabelTerm) -> None:
    """Otherwise the classifier would not train, and still be read."""
    config = TrainConfig(Path("d"), Path("o"), model=preset(name).model)
    objective = replace(config.objective, labels=labels)
    with pytest.raises(ValueError, match=r"'guided' and model\.classifier need each other"):
        replace(config, objective=objective).check()


def test_compile_and_checkpointing_exclude_each_other() -> None:
    config = TrainConfig(Path("d"), Path("o"), compile=True)
    config.check()
    with pytest.raises(ValueError, match=r"compile and model\.checkpointing do not work together"):
        replace(config, model=replace(config.model, checkpointing=True)).check()
