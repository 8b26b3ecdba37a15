"""A specification is read, and errors in it are reported with the file and the key."""

from dataclasses import replace
from pathlib import Path

import pytest

from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.evaluation.benchmark.spec import Budget, Entry, Spec, read_spec
from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.presets import OptimiserConfig

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


def test_values_are_read_and_the_rest_are_defaults(tmp_path: Path) -> None:
    text = WHOLE + "optimiser: {learning_rate: 2e-3}\nseeds: [1, 2]\nread_out: {samples: 4}\n"
    spec = read_spec(written(tmp_path, text))
    assert spec.data == Path("some.data")
    assert spec.budgets[0].labels == 10
    assert spec.optimiser.learning_rate == 2e-3
    assert list(spec.seeds) == [1, 2]
    assert spec.read_out == ReadOutOptions(samples=4)
    assert spec.entries["unet"] == Entry("unet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (WHOLE + "step: 3\n", "did you mean 'steps'"),
        (WHOLE.replace("method: unet", "method: u-net"), "choose one of unet"),
        (WHOLE.replace("method: unet", "metod: unet"), "metod"),
        (WHOLE.replace("method: unet", "method: unet, unlabelled: true"), "does not use"),
        (WHOLE.replace("folds: 5", "folds: five"), "folds"),
        (WHOLE + "steps: 0\n", "at least 1"),
        (WHOLE + "read_out: {views: 9}\n", "views"),
        (WHOLE + "read_out: {sample: 4}\n", "did you mean 'read_out.samples'"),
        (WHOLE + "read_out: {read_out: prior}\n", "leave out `read_out`"),
        (WHOLE + "read_out: {decision: dice}\n", "listed under `decisions`"),
        (WHOLE + "optimiser: {rate: 1}\n", "unknown key 'optimiser.rate'"),
        (WHOLE.replace("folds: 5", "folds: 5, tested: 6"), "between 1 and 5"),
        (WHOLE + "seeds: [1, 1]\n", "seeds name one twice"),
        (WHOLE.replace("method: unet", "method: unet, seeds: [2, 2]"), "unet: seeds must name"),
        (WHOLE + "decisions: [likeliest, likeliest]\n", "decisions name one twice"),
        (
            WHOLE.replace("budgets: [", "budgets: [{labels: 10, validation: false}, "),
            "budgets: two have the same numbers of labels and of folds",
        ),
        ("- 1\n", "must be a mapping"),
    ],
)
def test_errors_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_spec(path)
    assert str(path) in str(error.value)


def test_lists_are_candidates() -> None:
    entry = Entry("mean-teacher", options={"weight": [0.1, 1.0], "decay": 0.9})
    assert entry.candidates() == [{"weight": 0.1, "decay": 0.9}, {"weight": 1.0, "decay": 0.9}]
    assert Entry("unet").candidates() == [{}]


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    text = WHOLE.replace("method: unet", "method: unet, options: {learning_rate: [1e-3, 2E+1]}")
    assert read_spec(written(tmp_path, text)).entries["unet"].candidates() == [
        {"learning_rate": 0.001},
        {"learning_rate": 20.0},
    ]


def test_the_projects_specifications_are_valid() -> None:
    for path in Path("benchmarks").glob("*.yaml"):
        spec = read_spec(path)
        assert {entry.method for entry in spec.entries.values()} <= set(METHODS)


def test_the_digest_is_of_all_that_decides_a_result_and_nothing_else() -> None:
    entry, budget = Entry("bcp"), Budget(4)
    spec = Spec(Path("data"), {"bcp": entry}, [budget])
    digest = spec.digest(entry, budget)
    assert digest == replace(spec, seeds=(3,), device="cpu").digest(entry, budget)
    more = {"bcp": entry, "unet": Entry("unet")}
    assert digest == replace(spec, entries=more, budgets=[Budget(2)]).digest(entry, Budget(2))
    assert digest == spec.digest(replace(entry, data=Path("data"), seeds=[1]), budget)
    others = [
        replace(spec, steps=7).digest(entry, budget),
        replace(spec, optimiser=OptimiserConfig()).digest(entry, budget),
        replace(spec, data=Path("other")).digest(entry, budget),
        spec.digest(replace(entry, options={"weight": 2}), budget),
        spec.digest(replace(entry, unlabelled=False), budget),
        spec.digest(entry, replace(budget, validation=False)),
    ]
    assert len({digest, *others}) == 7


def test_candidates_need_validation() -> None:
    entry = Entry("unet", options={"learning_rate": [1e-3, 2e-3]})
    with pytest.raises(ValueError, match=r"entries\.unet: options cannot be chosen"):
        Spec(Path("data"), {"unet": entry}, [Budget(4, validation=False)])
