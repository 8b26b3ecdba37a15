"""Runs from a dataset to a folder: what they write, what they refuse, models without labels."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.model.label_terms import Guided
from pyro_stitchnet.model.objective import Objective
from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.presets import preset
from pyro_stitchnet.runtime.checksums import read_json
from pyro_stitchnet.runtime.locks import only_run
from pyro_stitchnet.training import checkpoint
from pyro_stitchnet.training import run as training_run
from pyro_stitchnet.training.callbacks import Callback
from pyro_stitchnet.training.config import TrainConfig, from_yaml
from pyro_stitchnet.training.learner import ElboLearner
from pyro_stitchnet.training.run import learner_of, run
from pyro_stitchnet.training.seen import seen
from pyro_stitchnet.training.self_training import SelfTraining
from pyro_stitchnet.training.state import State
from pyro_stitchnet.training.svae_learner import SliceVAELearner

TINY = preset("tiny")


def config_of(chosen: Any, data: Path, out: Path, **options: Any) -> TrainConfig:
    settings = {
        "steps": 2, "labelled_per_batch": 1, "unlabelled_per_batch": 1, "log_every": 1,
        "validate_every": 1, "device": "cpu", "progress": False,
    }  # fmt: skip
    return TrainConfig(data, out, **vars(chosen), **{**settings, **options})


@pytest.fixture(scope="module")
def small_svae() -> Any:
    """The preset "svae" with small networks."""
    model = replace(preset("tiny-logistic").model, stitched=False)
    return replace(preset("svae"), model=model)


@pytest.fixture(scope="module")
def svae_run(
    unlabelled_dataset: Path, small_svae: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run without any label."""
    out = tmp_path_factory.mktemp("runs") / "svae"
    return run(config_of(small_svae, unlabelled_dataset, out, folds=3))


@pytest.fixture(scope="module")
def tiny_run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with labelled and unlabelled slices."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    return run(config_of(TINY, dataset, out))


# --- A model without labels -----------------------------------------------------------------------


def test_a_dataset_without_labels_trains_a_model_without_labels(
    svae_run: Path, unlabelled_dataset: Path
) -> None:
    assert not Dataset(unlabelled_dataset).manifest["labelled"].any()
    record = json.loads((svae_run / "run.json").read_text())
    assert record["slices"]["labelled"] == 0
    assert record["slices"]["unlabelled"] > 0
    assert record["slices"]["validation"] > 0
    assert record["slices"]["test"] > 0
    parts = [set(names) for part, names in record["patients"].items() if part != "labelled"]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 5
    log = pd.read_csv(svae_run / "log.csv")
    assert log["validation/bits_per_dimension"].notna().all()
    assert {"loss", "elbo/log_px", "elbo/kl", "kl/z5"} <= set(log)
    best = int(log["step"][log["validation/bits_per_dimension"].idxmin()])
    assert record["best_step"] == best
    net, info = checkpoint.load_any(svae_run / "model.pt")
    assert isinstance(net, SliceVAE)
    assert info["config"]["objective"]["labels"] == {"kind": "unlabelled"}
    assert not (svae_run / "states").exists()


def test_labels_of_a_dataset_do_not_change_a_model_without_labels(
    dataset: Path, small_svae: Any, tmp_path: Path
) -> None:
    """All slices of the training patients are used, labelled or not, and none by its labels."""
    out = run(config_of(small_svae, dataset, tmp_path / "run", steps=1))
    record = json.loads((out / "run.json").read_text())
    assert record["slices"]["labelled"] == 0
    assert sum(record["slices"].values()) == len(Dataset(dataset).manifest)


def test_a_model_with_labels_refuses_a_dataset_without(
    unlabelled_dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no slice is labelled"):
        run(config_of(TINY, unlabelled_dataset, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# --- Folders and checkpoints ----------------------------------------------------------------------


def test_a_run_writes_its_configuration_split_log_and_model(tiny_run: Path, dataset: Path) -> None:
    assert from_yaml(tiny_run / "config.yaml") == config_of(TINY, dataset, tiny_run)
    record = json.loads((tiny_run / "run.json").read_text())
    assert record["last_step"] == 2
    split = pd.read_csv(tiny_run / "split.csv")
    for part in ("validation", "test"):
        patients = set(split["patient"][split["part"] == part])
        assert set(record["patients"][part]) <= patients
    log = pd.read_csv(tiny_run / "log.csv")
    assert log["step"].tolist() == [1, 2]
    net, info = checkpoint.load(tiny_run / "model.pt")
    assert isinstance(net, StitchNet)
    assert info["patients"] == record["patients"]


def test_a_finished_run_is_not_overwritten(tiny_run: Path, dataset: Path) -> None:
    config = config_of(TINY, dataset, tiny_run)
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="holds a finished run; choose another --out"):
            run(replace(config, resume=resume))


def test_nothing_to_resume(dataset: Path, tmp_path: Path) -> None:
    config = config_of(TINY, dataset, tmp_path / "run", resume=True)
    with pytest.raises(FileNotFoundError, match="states: no state of a run to resume"):
        run(config)
    assert not config.out.exists()


class StopsWhenKept(Callback):
    """Interrupts a run once its first state is saved."""

    def keep(self, state: State) -> None:
        raise KeyboardInterrupt


def test_a_refused_resume_changes_nothing(dataset: Path, tmp_path: Path) -> None:
    config = config_of(TINY, dataset, tmp_path / "run", keep_every=1)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        run(config, [StopsWhenKept()])
    files = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}
    assert {path.name for path in files} >= {"config.yaml", "run.json", "split.csv"}
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        run(replace(config, resume=True, seed=1))
    assert {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()} == files


def test_a_resumed_run_keeps_the_origin_of_its_first_part(
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = config_of(TINY, dataset, tmp_path / "run", keep_every=1)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        run(config, [StopsWhenKept()])
    first = read_json(config.out / "run.json")
    assert first["earlier_parts"] == []
    monkeypatch.setattr("pyro_stitchnet.runtime.provenance.COMMIT", "fffffff")
    run(replace(config, resume=True))
    (earlier,) = read_json(config.out / "run.json")["earlier_parts"]
    assert earlier == {name: first[name] for name in earlier}
    assert (
        f"commit was {first['commit']} when the run stopped and is fffffff"
        in capsys.readouterr().err
    )


def test_a_run_does_not_resume_in_another_precision(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "auto" may choose another one on another machine."""
    config = config_of(TINY, dataset, tmp_path / "run", keep_every=1, precision="auto")
    monkeypatch.setattr(training_run, "resolved", lambda *_: "bf16-mixed")
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        run(config, [StopsWhenKept()])
    monkeypatch.setattr(training_run, "resolved", lambda *_: "32")
    with pytest.raises(ValueError, match="precision was 'bf16-mixed' and is '32'"):
        run(replace(config, resume=True))


def test_self_training_without_a_slice_to_use_is_refused(dataset: Path, tmp_path: Path) -> None:
    labels = Guided(guide_weight=0, consistency_weight=1)
    chosen = replace(preset("guided"), objective=Objective(labels))
    config = config_of(chosen, dataset, tmp_path / "run", unlabelled_per_batch=0)
    with pytest.raises(ValueError, match="consistency_weight needs unlabelled slices"):
        run(config)
    assert not config.out.exists()


def test_a_run_starts_from_another_model(tiny_run: Path, dataset: Path, tmp_path: Path) -> None:
    """With a learning rate of 0 its weights stay."""
    still = replace(TINY, optimiser=replace(TINY.optimiser, learning_rate=0.0))
    config = config_of(
        still, dataset, tmp_path / "run", steps=1, start=tiny_run / "model.pt", folds=0
    )
    # Checkpointing does not change the networks.
    config = replace(config, model=replace(config.model, checkpointing=True))
    before, _ = checkpoint.load(tiny_run / "model.pt")
    after, _ = checkpoint.load(run(config) / "model.pt")
    weights = [dict(net.named_parameters()) for net in (before, after)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_start_that_does_not_fit_is_refused(
    tiny_run: Path, svae_run: Path, dataset: Path, tmp_path: Path
) -> None:
    config = config_of(TINY, dataset, tmp_path / "run", start=tiny_run / "model.pt", fold=1)
    with pytest.raises(ValueError, match=r"was trained or chosen on patients .* --folds 0"):
        run(config)
    with pytest.raises(ValueError, match=r"its networks differ in .*stitched"):
        run(replace(config, start=svae_run / "model.pt"))
    assert not config.out.exists()


def test_a_chain_of_starts_forgets_no_patient(
    tiny_run: Path, dataset: Path, tmp_path: Path
) -> None:
    """The second run is stopped and resumed, and the first model is gone by then."""
    write_folder(phantom_slices(range(20, 23), 1, size=64), tmp_path / "others")
    steps = Preprocessing(size=64, lungs="none")
    others = prepare(
        [str(tmp_path / "others")], tmp_path / "data", preprocessing=steps, progress=False
    )
    first = Path(shutil.copy(tiny_run / "model.pt", tmp_path / "first.pt"))
    config = config_of(TINY, others.folder, tmp_path / "second", start=first, folds=0, keep_every=1)
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        run(config, [StopsWhenKept()])
    first.unlink()
    _, info = checkpoint.load(run(replace(config, resume=True)) / "model.pt")
    before = json.loads((tiny_run / "run.json").read_text())["patients"]
    familiar = {name for part, names in before.items() if part != "test" for name in names}
    assert info["patients"]["start"] == sorted(familiar)
    third = config_of(TINY, dataset, tmp_path / "third", start=config.out / "model.pt", fold=1)
    with pytest.raises(ValueError, match=r"was trained or chosen on patients .* --folds 0"):
        run(third)
    record = json.loads((run(replace(third, folds=0)) / "run.json").read_text())
    assert record["patients"]["start"] == sorted(familiar | set(others.patients))


def test_a_model_does_not_start_before_a_test_on_its_slices_under_other_names(
    tiny_run: Path, tmp_path: Path
) -> None:
    """Such as the cases that `stitchnet rank` names after their voxels."""
    slices = phantom_slices(range(8), 2, size=64)
    renamed = [f"case-{patient}" for patient in slices.patients]
    write_folder(replace(slices, patients=renamed), tmp_path / "cases")
    steps = Preprocessing(size=64, lungs="none")
    cases = prepare(
        [str(tmp_path / "cases")], tmp_path / "data", preprocessing=steps, progress=False
    )
    start = tiny_run / "model.pt"
    config = config_of(TINY, cases.folder, tmp_path / "second", start=start)
    with pytest.raises(ValueError, match=r"holds out \(case-.* maybe under other names; .*folds 0"):
        run(config)
    assert not config.out.exists()
    _, info = checkpoint.load(start)
    of_test = cases.manifest["patient"].isin(f"case-{p}" for p in info["patients"]["test"])
    assert (seen(cases.manifest, info) == ~of_test).all()


# --- Learners -------------------------------------------------------------------------------------


def test_model_and_objective_choose_the_learner() -> None:
    guided = preset("guided")
    with torch.device("meta"):
        net = StitchNet(guided.model)
        svae = SliceVAE(preset("svae").model)
    labels = guided.objective.labels
    assert isinstance(labels, Guided)
    assert type(learner_of(net, guided.objective)) is ElboLearner
    self_trained = Objective(replace(labels, consistency_weight=1))
    assert type(learner_of(net, self_trained)) is SelfTraining
    assert type(learner_of(net, Objective())) is ElboLearner
    assert type(learner_of(svae, preset("svae").objective)) is SliceVAELearner


def test_two_runs_do_not_write_to_one_folder(dataset: Path, tmp_path: Path) -> None:
    with only_run(tmp_path / "out"), pytest.raises(BlockingIOError, match="another run is writing"):
        run(config_of(TINY, dataset, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_the_record_has_a_checksum(tiny_run: Path) -> None:
    assert read_json(tiny_run / "run.json")["last_step"] == 2
