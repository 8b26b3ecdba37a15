"""Rows of a folder go on, and those of several folders are joined, if they belong together."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.evaluation.benchmark.consistency import check_specification, slices_digest
from pyro_stitchnet.evaluation.benchmark.results import SCORES, TABLE, Results
from pyro_stitchnet.evaluation.benchmark.runner import join, run
from pyro_stitchnet.evaluation.benchmark.spec import Budget, Entry, Spec

ONE_FOLD = Budget(4, folds=5, tested=1)


def test_rows_of_another_specification_are_refused(
    small: Callable[..., Spec], first_fold: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(first_fold, out)
    with pytest.raises(ValueError, match="another specification made the rows of 'unet'"):
        run(small(steps=3), out)


def test_rows_of_another_specification_are_refused_whatever_is_trained(
    small: Callable[..., Spec], first_fold: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(first_fold, out)
    other = small(budgets=[ONE_FOLD], steps=3, seeds=(0, 1))
    with pytest.raises(ValueError, match="another specification made the rows of 'unet'"):
        run(other, out, seeds=[1])
    with pytest.raises(ValueError, match="another specification made the rows of 'unet'"):
        run(other, out, ["tiny"])
    with pytest.raises(ValueError, match="another specification made the rows of 'unet'"):
        check_specification(other, Results(out))


def test_rows_of_other_slices_are_refused(
    small: Callable[..., Spec],
    first_fold: Path,
    write_rows: Callable[[Path, pd.DataFrame], None],
    tmp_path: Path,
) -> None:
    spec, out = small(budgets=[ONE_FOLD]), tmp_path / "out"
    shutil.copytree(first_fold, out)
    rows = Results(out).rows
    assert rows["data_digest"].str.fullmatch("[0-9a-f]{12}").all()
    assert rows["data_digest"].nunique() == 1
    write_rows(out, rows.assign(data_digest="0" * 12))
    with pytest.raises(ValueError, match="rows were made with other slices"):
        run(spec, out)
    with pytest.raises(ValueError, match="rows were made with other slices"):
        join(spec, tmp_path / "all", [first_fold, out])
    assert not (tmp_path / "all" / TABLE).exists()


def test_the_digest_of_slices_covers_their_patients(datasets: Path) -> None:
    """They decide the split."""
    dataset = Dataset(datasets / "data")
    before = slices_digest(dataset)
    dataset.manifest["patient"] = dataset.manifest["patient"].to_numpy()[::-1]
    assert slices_digest(dataset) != before


def test_rows_of_several_precisions_are_refused(
    small: Callable[..., Spec],
    first_fold: Path,
    write_rows: Callable[[Path, pd.DataFrame], None],
    tmp_path: Path,
) -> None:
    """`auto` is another precision on another machine."""
    spec, out = small(budgets=[ONE_FOLD]), tmp_path / "out"
    shutil.copytree(first_fold, out)
    rows = Results(out).rows
    assert set(rows["precision"]) == {"32"}
    write_rows(out, rows.assign(precision="bf16-mixed"))
    with pytest.raises(ValueError, match=r"would differ between rows \(32, bf16-mixed\)"):
        run(spec, out)
    with pytest.raises(ValueError, match=r"would differ between rows \(32, bf16-mixed\)"):
        join(spec, tmp_path / "all", [first_fold, out])


def test_different_results_of_one_model_are_not_joined(
    small: Callable[..., Spec], first_fold: Path, tmp_path: Path
) -> None:
    other = Results(first_fold).rows.assign(dice_by_patient='{"a": 0.5}')
    Results(tmp_path / "other").add(other.to_dict("records"), pd.DataFrame())
    with pytest.raises(ValueError, match="two results of 'unet' with 4 labels, fold 0, seed 0"):
        join(small(), tmp_path / "all", [first_fold, tmp_path / "other"])
    assert not (tmp_path / "all" / TABLE).exists()


def test_an_entry_on_another_split_is_refused(
    small: Callable[..., Spec], datasets: Path, tmp_path: Path
) -> None:
    write_folder(phantom_slices(range(30, 33), 2, size=64), tmp_path / "more")
    sources = [str(datasets / "labelled"), str(tmp_path / "more")]
    steps = Preprocessing(size=64, lungs="none")
    prepare(sources, tmp_path / "own", preprocessing=steps, progress=False)
    own = Entry("unet", data=tmp_path / "own")
    spec = small(entries={"unet": Entry("unet"), "own": own}, budgets=[ONE_FOLD])
    with pytest.raises(
        ValueError, match=r"entries\.own: with seed 0 its data .* other test slices"
    ):
        run(spec, tmp_path / "out")


def test_folders_of_several_machines_are_joined(
    small: Callable[..., Spec], first_fold: Path, tmp_path: Path
) -> None:
    rows, scores = Results(first_fold).rows, pd.read_csv(first_fold / SCORES)
    for name in ("unet", "tiny"):
        mine = rows["name"] == name
        Results(tmp_path / name).add(rows[mine].to_dict("records"), scores[scores["name"] == name])
    join(small(), tmp_path / "unet", [tmp_path / "tiny", tmp_path / "unet"])
    joined = Results(tmp_path / "unet")
    pd.testing.assert_frame_equal(
        joined.rows.sort_values(["name", "variant"], ignore_index=True),
        rows.sort_values(["name", "variant"], ignore_index=True),
    )
    assert len(pd.read_csv(tmp_path / "unet" / SCORES)) == len(scores)


def test_results_without_scores_are_joined(
    small: Callable[..., Spec], first_fold: Path, tmp_path: Path
) -> None:
    Results(tmp_path / "rows").add(Results(first_fold).rows.to_dict("records"), pd.DataFrame())
    join(small(), tmp_path / "out", [tmp_path / "rows"])
    assert len(Results(tmp_path / "out").rows) == len(Results(first_fold).rows)


def test_what_cannot_be_joined_is_refused_before_anything_is_written(
    small: Callable[..., Spec], first_fold: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        join(small(), tmp_path / "out", [first_fold, tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="another specification"):
        join(small(steps=3), tmp_path / "out", [first_fold])
    with pytest.raises(ValueError, match="no entry 'tiny' with 4 labels and seed 0"):
        join(small(entries={"unet": Entry("unet")}), tmp_path / "out", [first_fold])
    assert not (tmp_path / "out").exists()
