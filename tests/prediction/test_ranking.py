"""Ranking by uncertainty, export of the ranked cases and training on corrected ones."""

import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.prediction.ranking import Ranking, export, rank
from pyro_stitchnet.runtime.checksums import read_json, sha256, write_json
from pyro_stitchnet.training import checkpoint

VOXELS = {"a": "a0a0a0a0ffff", "b": "b1b1b1b1ffff"}


@pytest.fixture
def results(phantom_scan: tuple[np.ndarray, ...], tmp_path: Path) -> Path:
    """Results of two scans with known entropies of their slices."""
    hu, labels, affine = phantom_scan
    for scan, entropies in {"a": [0, 1, 9, 8, 7, 2, 3, 1, 6, 0, 0, 0], "b": [0] * 11 + [5]}.items():
        folder = tmp_path / "results" / scan
        folder.mkdir(parents=True)
        flip = np.eye(4)
        if scan == "b":  # stored from head to feet
            flip[2, 2:] = -1, 11
        for name, array in (("scan", hu), ("labels", labels)):
            oriented = array if scan == "a" else array[:, :, ::-1]
            nib.save(nib.Nifti1Image(oriented, affine @ flip), folder / f"{name}.nii.gz")
        heights = 20.0 * np.arange(12)
        table = {
            "slice": np.arange(12),
            "height_mm": heights,
            "entropy": np.array(entropies, float),
        }
        pd.DataFrame(table).to_csv(folder / "slices.csv", index=False)
        write_json(folder / "report.json", {
            "slices_segmented": 12,
            "entropy": float(np.mean(entropies)),
            "voxels": VOXELS[scan],
            "checksums": {file.name: sha256(file) for file in folder.iterdir()},
        })  # fmt: skip
    return tmp_path / "results"


def test_the_most_uncertain_slices_come_first_and_are_apart(results: Path) -> None:
    table = rank(results, Ranking(9, apart=40.0))
    assert list(zip(table["scan"], table["slice"], strict=True)) == [
        ("a", 2), ("a", 4), ("a", 8), ("b", 11),
    ]  # fmt: skip
    assert list(table["entropy"]) == [9, 7, 6, 5]
    assert len(rank(results, Ranking(2, apart=40.0))) == 2
    assert list(rank(results, Ranking(9, apart=0.0, per_scan=1))["slice"]) == [2, 11]
    assert list(rank(results, Ranking(9, by="scan"))["scan"]) == ["a", "b"]


def test_copies_of_a_scan_count_once(results: Path) -> None:
    report = read_json(results / "b" / "report.json")
    write_json(results / "b" / "report.json", {**report, "voxels": VOXELS["a"]})
    assert set(rank(results, Ranking(9))["scan"]) == {"a"}


def test_cases_are_not_written_among_other_files(results: Path) -> None:
    with pytest.raises(FileExistsError, match=r"results: holds other files \(a, b\)"):
        export(results, rank(results, Ranking(9)), results)


def test_later_rounds_exclude_earlier_cases(results: Path, tmp_path: Path) -> None:
    first = rank(results, Ranking(2, apart=40.0))
    export(results, first, tmp_path / "todo")
    second = rank(results, Ranking(9, apart=40.0), exclude=[tmp_path / "todo"])
    assert list(zip(second["scan"], second["slice"], strict=True)) == [
        ("a", 8), ("b", 11), ("a", 6),
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match="stitchnet rank"):
        rank(results, Ranking(1), exclude=[tmp_path])


def test_exported_slices_keep_their_position_in_the_patient(
    results: Path, phantom_scan: tuple[np.ndarray, ...], tmp_path: Path
) -> None:
    hu, labels, affine = phantom_scan
    export(results, rank(results, Ranking(9, apart=40.0)), tmp_path / "todo")
    for case, index in (("a_a0a0a0a0_slice0002", 2), ("b_b1b1b1b1_slice0011", 11)):
        image = nib.Nifti1Image.from_filename(tmp_path / "todo/imagesTr" / f"{case}_0000.nii.gz")
        draft = nib.Nifti1Image.from_filename(tmp_path / "todo/drafts" / f"{case}.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj)[..., 0], hu[..., index])
        assert np.array_equal(np.asarray(draft.dataobj)[..., 0], labels[..., index])
        assert np.allclose(image.affine[:3, 3], (affine @ [0, 0, index, 1])[:3])
    with pytest.raises(FileExistsError, match="another --out"):
        export(results, rank(results, Ranking(1)), tmp_path / "todo")


def test_only_corrected_masks_become_labels(results: Path, tmp_path: Path) -> None:
    todo = tmp_path / "todo"
    export(results, rank(results, Ranking(9, apart=40.0)), todo)
    corrected = nib.Nifti1Image.from_filename(todo / "drafts" / "a_a0a0a0a0_slice0004.nii.gz")
    nib.save(corrected, todo / "labelsTr" / "a_a0a0a0a0_slice0004.nii.gz")
    steps = Preprocessing(size=64, least_lung=0.0)
    dataset = prepare([str(todo)], tmp_path / "data", preprocessing=steps, progress=False)
    manifest = dataset.manifest.set_index("scan")
    assert set(manifest.index[manifest["complete"]]) == {"a_a0a0a0a0_slice0004"}
    assert set(manifest["patient"]) == {"scan-a0a0a0a0", "scan-b1b1b1b1"}
    assert not manifest["labelled"].drop("a_a0a0a0a0_slice0004").any()


def test_the_same_scan_is_known_in_other_results(results: Path, tmp_path: Path) -> None:
    """Scans are numbered in each results folder: another one may have the name of an earlier."""
    export(results, rank(results, Ranking(2, apart=40.0)), tmp_path / "todo")
    (results / "a").rename(results / "c")
    (results / "b").rename(results / "a")
    second = rank(results, Ranking(9, apart=40.0), exclude=[tmp_path / "todo"])
    assert list(zip(second["scan"], second["slice"], strict=True)) == [
        ("c", 8),
        ("a", 11),
        ("c", 6),
    ]
    scans = rank(results, Ranking(1, by="scan"))
    export(results, scans, tmp_path / "whole")
    third = rank(results, Ranking(9, apart=40.0), exclude=[tmp_path / "whole"])
    assert set(third["scan"]) == {"a"}


def test_missing_volumes_are_refused(results: Path, tmp_path: Path) -> None:
    report = read_json(results / "a" / "report.json")
    (results / "a" / "scan.nii.gz").unlink()
    table = rank(results, Ranking(1))
    with pytest.raises(FileNotFoundError, match=r"scan\.nii\.gz: missing; to segment"):
        export(results, table, tmp_path / "todo")
    del report["checksums"]["scan.nii.gz"]
    write_json(results / "a" / "report.json", report)
    with pytest.raises(FileNotFoundError, match=r"scan\.nii\.gz: missing.*--save-scan"):
        export(results, table, tmp_path / "todo")
    with pytest.raises(FileNotFoundError, match="no finished scan"):
        rank(tmp_path / "empty", Ranking(1))


@pytest.mark.parametrize("file", ["report.json", "slices.csv", "scan.nii.gz", "labels.nii.gz"])
def test_damaged_results_are_refused(results: Path, tmp_path: Path, file: str) -> None:
    path = results / "a" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a/{file}: damaged"):
        export(results, rank(results, Ranking(1)), tmp_path / "todo")


def test_a_changed_list_of_earlier_cases_is_refused(results: Path, tmp_path: Path) -> None:
    table = rank(results, Ranking(1))
    case = table["case"].item()
    export(results, table, tmp_path / "todo")
    (tmp_path / "todo" / "todo.csv").write_text("done")  # by the user
    assert rank(results, Ranking(1), exclude=[tmp_path / "todo"])["case"].item() != case
    record = tmp_path / "todo" / "rank.json"
    record.write_text(record.read_text().replace("a0a0a0a0ffff", "a0a0a0a0fffe"))
    with pytest.raises(ValueError, match=r"rank\.json: damaged or edited"):
        rank(results, Ranking(1), exclude=[tmp_path / "todo"])


@pytest.mark.parametrize(
    "options",
    [{"count": 0}, {"count": -1}, {"apart": -1.0}, {"apart": math.nan}, {"apart": math.inf},
     {"per_scan": 0}],
)  # fmt: skip
def test_invalid_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be (at least|at most|a finite number)"):
        Ranking(**{"count": 1, **options})  # type: ignore[arg-type]


def test_the_loop_of_training_and_labelling_on_the_command_line(
    stitchnet: Callable[..., None], write_scan: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Train, predict, rank, correct, prepare, train on from the checkpoint."""
    quick = ["--preset", "tiny", "--steps", 2, "--labelled-per-batch", 2, "--folds", 0,
             "--unlabelled-per-batch", 2, "--no-progress", "--no-tensorboard"]  # fmt: skip
    stitchnet("phantom", "--out", tmp_path / "first", "--patients", 2, "--slices", 2, "--size", 64)
    stitchnet("prepare", tmp_path / "first", "--out", tmp_path / "a.data", "--size", 64,
              "--lungs", "none", "--workers", 1, "--no-progress")  # fmt: skip
    stitchnet("train", tmp_path / "a.data", "--out", tmp_path / "a", *quick)
    scan, model = write_scan(tmp_path / "new" / "scan.nii.gz"), tmp_path / "a" / "model.pt"
    stitchnet("predict", scan.parent, "--model", model, "--out", tmp_path / "out", "--workers", 0,
              "--lungs", "classical", "--no-progress")  # fmt: skip
    stitchnet("rank", tmp_path / "out", "--out", tmp_path / "todo", "--count", 2)
    for draft in (tmp_path / "todo" / "drafts").iterdir():
        draft.rename(tmp_path / "todo" / "labelsTr" / draft.name)
    stitchnet("prepare", tmp_path / "first", tmp_path / "todo", "--out", tmp_path / "b.data",
              "--size", 64, "--lungs", "none", "--workers", 1, "--no-progress")  # fmt: skip
    assert Dataset(tmp_path / "b.data").manifest["complete"].sum() == 6
    stitchnet("train", tmp_path / "b.data", "--out", tmp_path / "b", *quick, "--start",
              model, "--learning-rate", 0)  # fmt: skip
    before, after = (checkpoint.load(tmp_path / name / "model.pt")[0].state_dict() for name in "ab")
    assert all(
        np.array_equal(before[name], after[name]) for name in before if "running" not in name
    )
    # A patient of the checkpoint's training is not held out, and other networks are refused.
    with pytest.raises(SystemExit):
        stitchnet("train", tmp_path / "b.data", "--out", tmp_path / "c", *quick, "--folds", 3,
                  "--start", model)  # fmt: skip
    with pytest.raises(SystemExit):
        stitchnet("train", tmp_path / "b.data", "--out", tmp_path / "c", *quick, "--width", 0.5,
                  "--start", model)  # fmt: skip
    assert not (tmp_path / "c").exists()
