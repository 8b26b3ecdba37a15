"""Models are trained once, resumed, reproduced, and trained without test labels."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import Slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.evaluation.benchmark import runner
from pyro_stitchnet.evaluation.benchmark.cells import Cell, parts_of
from pyro_stitchnet.evaluation.benchmark.methods import METHODS
from pyro_stitchnet.evaluation.benchmark.results import SCORES, Results
from pyro_stitchnet.evaluation.benchmark.runner import check_options, run, train_candidate
from pyro_stitchnet.evaluation.benchmark.spec import Budget, Entry, Spec, read_spec
from pyro_stitchnet.posterior import ReadOutOptions
from pyro_stitchnet.presets import OptimiserConfig, preset
from pyro_stitchnet.training.config import TrainConfig
from pyro_stitchnet.training.learner import Learner

METRICS = ["dice_ggo", "dice_con", "ece_ggo", "other_hospital_infection", "validation_dice"]
ONE_FOLD = Budget(4, folds=5, tested=1)


def scores_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / SCORES).fillna({"variant": ""})


def test_every_variant_is_a_row_with_metrics_and_provenance(first_fold: Path) -> None:
    results = Results(first_fold)
    assert list(results.rows["variant"]) == ["", "threshold", "gaussian", "levels", "", "posterior"]
    assert {"command", "commit", "machine", "date", "seed", "seconds_training"} <= set(results.rows)
    metrics = results.rows[["ece_ggo", "brier_con", "other_hospital_infection"]]
    assert metrics.notna().all(axis=None)
    kinds = ("ggo_batch", "con_batch", "ggo_own", "con_own")
    columns = [f"dice_{kind}_statistics" for kind in kinds]
    of_statistics = results.rows.set_index("method")[columns].notna()
    assert of_statistics.loc["stitchnet-tiny"].all(axis=None)
    assert not of_statistics.loc["unet"].any(axis=None)
    scores = scores_of(first_fold)
    assert set(scores["set"]) == {"test", "other_hospital"}
    assert set(scores.loc[scores["set"] == "other_hospital", "lesion"]) == {"Infection"}
    assert len(scores[(scores["set"] == "test") & (scores["variant"] == "posterior")]) == 4 * 4


def test_every_decision_is_a_row_of_the_same_model(
    small: Callable[..., Spec], first_fold: Path, tmp_path: Path
) -> None:
    spec = small(decisions=("likeliest", "dice"), budgets=[ONE_FOLD])
    results = run(spec, tmp_path, ["unet"])
    rows = results.rows.set_index("variant")
    variants = ["", "dice", "threshold", "threshold, dice", "gaussian", "gaussian, dice"]
    variants += ["levels", "levels, dice"]
    assert list(rows.index) == variants
    before = Results(first_fold).rows.iloc[0]
    assert rows.loc["", "dice_ggo"] == pytest.approx(before["dice_ggo"])
    assert rows.loc["dice", "ece_ggo"] == rows.loc["", "ece_ggo"]
    scores = scores_of(tmp_path)
    infection = scores[scores["lesion"] == "Infection"]
    predicted = infection.groupby("variant")["predicted_pixels"].sum()
    assert predicted["dice"] > predicted[""]


def test_small_patches_of_consolidation_become_ggo(
    small: Callable[..., Spec], tmp_path: Path
) -> None:
    spec = small(read_out=ReadOutOptions(least_patch=64 * 64 + 1), budgets=[ONE_FOLD])
    run(spec, tmp_path, ["unet"])
    scores = scores_of(tmp_path)
    assert (scores.loc[scores["lesion"] == "CON", "predicted_pixels"] == 0).all()


def test_finished_models_are_not_trained_again(
    small: Callable[..., Spec], first_fold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(first_fold, out)
    begun: list[Cell] = []

    def stop(_: Spec, cell: Cell, *__: object) -> None:
        begun.append(cell)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_train_and_test", stop)
    with pytest.raises(KeyboardInterrupt):
        run(small(), out)
    assert [(cell.name, cell.fold) for cell in begun] == [("unet", 1)]


def test_an_entry_may_have_data_and_seeds_of_its_own(
    small: Callable[..., Spec], datasets: Path, tmp_path: Path
) -> None:
    sources = ["labelled", "unlabelled", "partial@infection"]
    prepare(
        [f"{datasets}/{name}" for name in sources],
        tmp_path / "sets",
        preprocessing=Preprocessing(size=64, lungs="none"),
        progress=False,
    )
    own = Entry("unet", data=tmp_path / "sets", seeds=[1])
    spec = small(entries={"unet": Entry("unet"), "own": own}, budgets=[ONE_FOLD], steps=1)
    rows = run(spec, tmp_path / "out").rows.drop_duplicates("name").set_index("name")
    assert rows["seed"].to_dict() == {"unet": 0, "own": 1}
    assert rows["data"].to_dict() == {"unet": str(spec.data), "own": str(own.data)}
    # It was trained on the other hospital's slices.
    assert rows["other_hospital_infection"].isna().to_dict() == {"unet": False, "own": True}
    digests = {name: spec.digest(entry, ONE_FOLD) for name, entry in spec.entries.items()}
    assert rows["spec_digest"].to_dict() == digests


def test_an_unknown_entry_is_refused(small: Callable[..., Spec], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are unet, tiny"):
        run(small(), tmp_path, ["big"])


def test_only_chosen_budgets_are_run(small: Callable[..., Spec], tmp_path: Path) -> None:
    spec = small(budgets=[ONE_FOLD, replace(ONE_FOLD, labels=5)], steps=1)
    assert set(run(spec, tmp_path, ["unet"], [5]).rows["labels"]) == {5}
    with pytest.raises(ValueError, match=r"no budget of 6 labelled slices; there are \[4, 5\]"):
        run(spec, tmp_path, labels=[6])
    whole = small(budgets=[replace(ONE_FOLD, labels=None), ONE_FOLD], steps=1)
    assert set(run(whole, tmp_path / "all", ["unet"], [-1]).rows["labels"]) == {-1}


def test_only_chosen_seeds_are_run(small: Callable[..., Spec], tmp_path: Path) -> None:
    spec = small(budgets=[ONE_FOLD], seeds=(0, 1))
    with pytest.raises(ValueError, match="no entry to train has the seed 2"):
        run(spec, tmp_path, ["unet"], seeds=[2])
    assert set(run(spec, tmp_path, ["unet"], seeds=[1]).rows["seed"]) == {1}


def test_an_entry_may_have_steps_of_its_own(
    small: Callable[..., Spec], slices: dict[str, Slices]
) -> None:
    entry = Entry("unet", steps=1)
    spec = small(entries={"unet": entry})
    cell = Cell("unet", entry, ONE_FOLD, 0, 0)
    learner, _ = train_candidate(spec, cell, slices, {})
    one_step = train_candidate(replace(spec, steps=1), cell, slices, {})[0]
    for weights, other in zip(learner.parameters(), one_step.parameters(), strict=True):
        torch.testing.assert_close(weights, other)
    assert spec.digest(entry, ONE_FOLD) != spec.digest(Entry("unet"), ONE_FOLD)


def test_a_row_is_reproduced(small: Callable[..., Spec], first_fold: Path, tmp_path: Path) -> None:
    again = run(small(budgets=[ONE_FOLD]), tmp_path, ["unet"]).rows
    before = Results(first_fold).rows
    columns = ["name", "variant", *METRICS]
    pd.testing.assert_frame_equal(
        again[columns], before.loc[before["name"] == "unet", columns], rtol=1e-6
    )


def test_without_validation_its_fold_is_trained_on(
    small: Callable[..., Spec], tmp_path: Path
) -> None:
    # With a validation fold there are only 6 slices to train on.
    budget = Budget(8, folds=5, tested=1, validation=False)
    rows = run(small(budgets=[budget]), tmp_path, ["unet"]).rows
    assert rows["validation_dice"].isna().all()
    assert rows["dice_ggo"].notna().any()


@pytest.mark.parametrize("name", ["unet", "tiny"])
def test_no_method_sees_test_labels(
    small: Callable[..., Spec], name: str, slices: dict[str, Slices]
) -> None:
    """Other test labels leave the trained weights unchanged, to the bit."""
    spec = small()
    cell = Cell(name, spec.entries[name], spec.budgets[0], 0, 0)
    test = slices["test"]
    assert not set(test.patients) & {
        patient for part in slices if part != "test" for patient in slices[part].patients
    }
    scrambled = {**slices, "test": replace(test, label_sets=torch.ones_like(test.label_sets))}
    one, other = (
        train_candidate(spec, cell, each, {})[0].state_dict() for each in (slices, scrambled)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Entry("unet", options={"strength": 1}), "entries.last: unet has no option .strength"),
        (Entry("stitchnet-tiny", options={"dice_weight": 1}), "entries.last: .*dice_weight"),
        (Entry("stitchnet-tiny", options={"labels": "marginally"}), "entries.last: .*marginally"),
        (
            Entry("stitchnet-guided", options={"consistency_weight": [1, -1]}),
            "entries.last: .*least 0",
        ),
        (
            Entry("unimatch", options={"confidence": 95}),
            "entries.last: confidence must be at most 1",
        ),
        (Entry("mean-teacher", options={"decay": 1.0}), "entries.last: decay must be below 1"),
        (Entry("bcp", options={"weight": -1}), "entries.last: weight must be at least 0"),
        (Entry("cps", options={"ramp_steps": -1}), "entries.last: ramp_steps must be at least 0"),
        (Entry("pseudo-labels", options={"every": 0}), "entries.last: every must be at least 1"),
    ],
)
def test_options_are_refused_before_training(
    small: Callable[..., Spec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: Entry,
    message: str,
) -> None:
    monkeypatch.setattr(runner, "train_candidate", None)
    with pytest.raises(ValueError, match=message):
        run(small(entries={"unet": Entry("unet"), "last": entry}), tmp_path)


@pytest.mark.parametrize("path", sorted(Path("benchmarks").glob("*.yaml")), ids=str)
def test_the_options_of_the_projects_specifications_are_valid(path: Path) -> None:
    spec = read_spec(path)
    for name in spec.entries:
        check_options(spec, name)


def test_a_wrong_candidate_is_refused_before_the_first_is_trained(
    small: Callable[..., Spec],
) -> None:
    entry = Entry("unet", options={"learning_rate": [1e-3, -1]})
    with pytest.raises(ValueError, match=r"entries\.u: learning_rate must be at least 0, got -1"):
        check_options(small(entries={"u": entry}), "u")


@pytest.mark.parametrize(
    ("entry", "steps", "refused"),
    [
        (Entry("bcp"), 200, True),
        (Entry("bcp"), 201, False),
        (Entry("bcp", unlabelled=False), 200, False),
        (Entry("pseudo-labels"), 200, True),
        (Entry("unet"), 1, False),
    ],
)
def test_a_method_that_would_see_no_unlabelled_slice_is_refused(
    small: Callable[..., Spec], entry: Entry, steps: int, refused: bool
) -> None:
    spec = small(entries={"u": replace(entry, steps=steps)})
    message = "entries.u: the first 200 steps"
    with pytest.raises(ValueError, match=message) if refused else nullcontext():
        check_options(spec, "u")


SELF_TRAINED = Entry("stitchnet-guided", options={"consistency_weight": 1})


@pytest.mark.parametrize("entry", [Entry("unimatch"), SELF_TRAINED])
def test_a_dataset_without_unlabelled_slices_is_refused(
    small: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Entry
) -> None:
    def without(dataset: Dataset, cell: Cell) -> dict[str, Dataset]:
        return {**parts_of(dataset, cell), "unlabelled": dataset.take([])}

    monkeypatch.setattr(runner, "parts_of", without)
    monkeypatch.setattr(runner, "train_candidate", None)
    spec = small(entries={"unet": Entry("unet"), "u": entry})
    with pytest.raises(ValueError, match=r"entries\.u: .* no unlabelled slice for training"):
        run(spec, tmp_path)


def test_self_training_that_leaves_out_unlabelled_slices_is_refused(
    small: Callable[..., Spec], tmp_path: Path
) -> None:
    spec = small(entries={"u": replace(SELF_TRAINED, unlabelled=False)})
    with pytest.raises(ValueError, match=r"entries\.u: .* no unlabelled slice for training"):
        run(spec, tmp_path)


def test_models_without_all_read_outs_of_today_are_named(
    small: Callable[..., Spec],
    first_fold: Path,
    write_rows: Callable[[Path, pd.DataFrame], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(first_fold, tmp_path, dirs_exist_ok=True)
    spec, rows = small(budgets=[ONE_FOLD]), Results(tmp_path).rows
    run(spec, tmp_path)
    assert "note" not in capsys.readouterr().err
    write_rows(tmp_path, rows[rows["variant"] != "levels"])
    run(spec, tmp_path)
    note = "lack a read-out or decision of today: 1, first 'unet' with 4 labels"
    assert note in capsys.readouterr().err


def test_a_split_that_leaks_is_refused(
    small: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A split by slice, not by patient."""

    def by_slice(manifest: pd.DataFrame, **_: object) -> pd.Series:
        return pd.Series(["train", "validation", "test", "train"] * len(manifest))[: len(manifest)]

    monkeypatch.setattr("pyro_stitchnet.data.datasets.partition.assign", by_slice)
    with pytest.raises(ValueError, match="patient"):
        run(small(), tmp_path)
    assert not (tmp_path / "table.csv").exists()


def test_the_best_candidate_on_validation_is_tested(
    small: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def scored(
        spec: Spec, cell: Cell, slices: dict[str, Slices], options: dict[str, float]
    ) -> object:
        tried.append(options)
        return train_candidate(spec, cell, slices, options)[0], options["learning_rate"]

    monkeypatch.setattr(runner, "train_candidate", scored)
    entry = Entry("unet", options={"learning_rate": [1e-3, 3e-3, 2e-3]})
    rows = run(small(entries={"unet": entry}, budgets=[ONE_FOLD]), tmp_path).rows
    assert len(tried) == 3
    assert (rows["validation_dice"] == 3e-3).all()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_learning_rate_is_the_specifications_unless_an_entry_changes_it(
    small: Callable[..., Spec], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []

    def fit(learner: object, slices: object, config: TrainConfig, **_: object) -> SimpleNamespace:
        rates.append(config.optimiser.learning_rate)
        return SimpleNamespace(rows=[])

    monkeypatch.setattr(runner, "fit", fit)
    monkeypatch.setitem(
        METHODS, method, replace(METHODS[method], build=lambda weights, **_: Learner())
    )
    spec = small(entries={"one": Entry(method)}, optimiser=OptimiserConfig(learning_rate=7e-4))
    cell = Cell("one", spec.entries["one"], Budget(4, validation=False), 0, 0)
    for options in ({}, {"learning_rate": 1e-5}):
        train_candidate(spec, cell, {}, options)
    assert rates == [7e-4, 1e-5]


@pytest.mark.parametrize("unlabelled", [False, True])
def test_the_classifier_of_guided_is_the_unet_of_the_same_seed(
    small: Callable[..., Spec], unlabelled: bool, slices: dict[str, Slices]
) -> None:
    """Differences between the two in a table come from the generative model alone."""
    entries = {
        "unet": Entry("unet"),
        "guided": Entry("stitchnet-guided", unlabelled=unlabelled),
    }
    spec = small(entries=entries, steps=3, optimiser=preset("guided").optimiser)
    weights = []
    for name, entry in entries.items():
        # Without validation: it selects the weights of "guided" by the posterior, not by q(y | x).
        cell = Cell(name, entry, Budget(4, validation=False), 0, 0)
        learner, _ = train_candidate(spec, cell, slices, entry.options)
        network = learner.get_submodule("network" if name == "unet" else "net.classifier")
        weights.append(network.state_dict())
    unet, classifier = weights
    assert unet.keys() == classifier.keys()
    for key, value in unet.items():
        torch.testing.assert_close(classifier[key], value, rtol=0, atol=0)


def test_an_entry_may_start_from_random_weights(
    small: Callable[..., Spec], slices: dict[str, Slices]
) -> None:
    given, unet = [], METHODS["unet"]

    def build(weights: str | None, **_: object) -> Learner:
        given.append(weights)
        return unet.build(None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "unet", replace(unet, build=build))
        for entry in (Entry("unet"), Entry("unet", random_start=True)):
            spec = small(weights="some.pt", entries={"unet": entry})
            cell = Cell("unet", entry, spec.budgets[0], fold=0, seed=0)
            train_candidate(spec, cell, slices, {})
    assert given == ["some.pt", None]


def test_a_budget_that_the_data_cannot_fill_is_found_before_the_first_model(
    small: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_train_and_test", None)  # not reached
    spec = small(budgets=[ONE_FOLD, Budget(4, folds=99, tested=1)])
    with pytest.raises(ValueError, match=r"budget of 4 labels, seed 0: .*folds must be between"):
        run(spec, tmp_path / "out")
