"""A specification says what to compare, or is refused in its own words."""

from pathlib import Path

import pytest

from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.evaluation.benchmark.spec import Entry, read_spec

WHOLE = """
data: some.data
budgets: [{labels: 10, folds: 5}]
entries:
  unet: {method: unet}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_what_is_said_and_defaults_for_the_rest(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, WHOLE + "optimiser: {learning_rate: 2e-3}\nseeds: [1, 2]\n"))
    assert spec.data == Path("some.data")
    assert spec.budgets[0].labels == 10
    assert spec.optimiser.learning_rate == 2e-3
    assert list(spec.seeds) == [1, 2]
    assert spec.entries["unet"] == Entry("unet")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WHOLE + "step: 3\n", "did you mean 'steps'"),
        (WHOLE.replace("method: unet", "method: u-net"), "choose one of unet"),
        (WHOLE.replace("method: unet", "metod: unet"), "metod"),
        (WHOLE.replace("method: unet", "method: unet, unlabelled: true"), "has no use for"),
        (WHOLE.replace("folds: 5", "folds: five"), "folds"),
        (WHOLE + "steps: 0\n", "at least 1"),
        (WHOLE + "views: 9\n", "views"),
        (WHOLE.replace("folds: 5", "folds: 5, tested: 6"), "between 1 and 5"),
        ("- 1\n", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=said) as error:
        read_spec(path)
    assert str(path) in str(error.value)


def test_lists_are_candidates() -> None:
    entry = Entry("mean-teacher", options={"weight": [0.1, 1.0], "decay": 0.9})
    assert entry.candidates() == [{"weight": 0.1, "decay": 0.9}, {"weight": 1.0, "decay": 0.9}]
    assert Entry("unet").candidates() == [{}]


def test_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    text = WHOLE.replace("method: unet", "method: unet, options: {learning_rate: [1e-3, 2E+1]}")
    assert read_spec(written(tmp_path, text)).entries["unet"].candidates() == [
        {"learning_rate": 0.001},
        {"learning_rate": 20.0},
    ]


def test_the_projects_own_specifications_are_sound() -> None:
    for path in Path("benchmarks").glob("*.yaml"):
        spec = read_spec(path)
        assert {entry.method for entry in spec.entries.values()} <= set(METHODS)
