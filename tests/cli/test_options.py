"""Every number that a command takes has a range, and a number out of it is one line."""

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import torch
from pydantic.fields import FieldInfo

from pyro_stitchnet.cli import COMMANDS
from pyro_stitchnet.model.label_terms import LABEL_TERMS
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.locks import only_run
from pyro_stitchnet.training import checkpoint


def numbers(hint: Any, ranged: bool = False) -> Iterator[bool]:
    """Whether each number within a type has a range."""
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        yield from numbers(kind, ranged or any(isinstance(note, FieldInfo) for note in notes))
    elif get_origin(hint) is typing.Literal:
        return
    elif dataclasses.is_dataclass(hint):
        for name, part in options(hint):
            assert all(numbers(part)), f"{hint}: {name} has no range"
    elif hint in (int, float):
        yield ranged
    else:
        for part in get_args(hint):
            yield from numbers(part, ranged)


def options(annotated: Any) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(annotated, include_extras=True)
    names = (
        [field.name for field in dataclasses.fields(annotated)]
        if dataclasses.is_dataclass(annotated)
        else inspect.signature(annotated).parameters
    )
    return ((name, hints[name]) for name in names)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_has_a_range(command: str) -> None:
    module = importlib.import_module(f"pyro_stitchnet.cli.{COMMANDS[command].module}")
    for name, hint in options(getattr(module, command)):
        assert all(numbers(hint)), f"{command}: {name} has no range"


@pytest.mark.parametrize("kind", LABEL_TERMS.values())
def test_every_number_of_a_label_term_has_a_range(kind: type) -> None:
    assert all(numbers(kind))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.manual_seed(0)
    checkpoint.save(StitchNet(preset("tiny").model), path)
    return path


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e308", "1000000000000", "x", ""])
@pytest.mark.parametrize(
    "option",
    [
        "train --start-deviation", "train --steps", "train --minutes", "train --learning-rate",
        "train --width", "train --kl-weight", "train --paste", "train --processes",
        "train --label-weight", "train --seed", "sample --number", "sample --size",
        "sample --temperature", "styles --draws", "explain --draws", "evaluate --batch-size",
        "evaluate --least-patch", "export --size", "demo --steps",
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_one_line(
    option: str,
    value: str,
    model: Path,
    stitchnet: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command, name = option.split()
    one: list[object] = [model]
    files: dict[str, list[object]] = {"train": ["d"], "sample": one, "export": one, "demo": []}
    with pytest.raises(SystemExit) as stop:
        stitchnet(command, *files.get(command, [model, "slice"]), "--out", "out", f"{name}={value}")
    said = capsys.readouterr().err
    assert stop.value.code in (1, 2)
    assert "Traceback" not in said
    if stop.value.code == 1:
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert name.strip("-").replace("-", "_") in said.replace("-", "_")
    assert not (tmp_path / "out").exists()


def test_samples_that_need_too_much_memory_together(
    model: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    said = refused("sample", model, "--out", tmp_path / "out", "--size", 2048, "--number", 100)
    assert "--number 100: slices of 2048 x 2048 need too much memory together; give at" in said


def test_a_folder_in_which_another_run_writes(
    model: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    with only_run(tmp_path):
        said = refused("sample", model, "--out", tmp_path, "--size", 64, "--number", 1)
    assert f"{tmp_path}: another run is writing here" in said
    assert said.count("\n") == 1
