"""The summary of a dataset is that of its slices."""

from pathlib import Path

import pandas as pd
import pytest

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import Slices, write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.figures.dataset_page import contact_sheet, inspect, write_inspection


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six labelled slices of 3 patients, 2 unlabelled of a fourth, one of them a copy."""
    root = tmp_path_factory.mktemp("dataset")
    labelled = phantom_slices(3, 2, size=64)
    images = phantom_slices([3], 2, size=64).images
    images[0] = labelled.images[0]
    unlabelled = Slices(images, labelled.label_sets[:2], ["x.png", "y.png"], ["p", "p"])
    write_folder(labelled, root / "labelled")
    write_folder(unlabelled, root / "unlabelled", masks=False)
    folders = [str(root / "labelled"), str(root / "unlabelled")]
    steps = Preprocessing(size=64, lungs="none")
    return prepare(folders, root / "out", preprocessing=steps, progress=False)


def test_counts_and_shares_are_those_of_the_slices(dataset: Dataset) -> None:
    summary = inspect(dataset)
    row = summary.counts.loc["folder"]
    assert (row["slices"], row["patients"], row["labelled"], row["complete"]) == (8, 4, 6, 6)
    assert row["GGO"] == dataset.manifest["has_ggo"].sum()
    sets = dataset.load().label_sets
    for name, bits in {"0": 1, "1": 2, "2": 4, "3": 8, "0+1+2+3": 15}.items():
        expected = float((sets == bits).float().mean())
        if expected:
            assert summary.shares["share"][name] == pytest.approx(expected)
        else:
            assert name not in summary.shares.index
    assert summary.histogram.sum().to_numpy() == pytest.approx(1)
    air = (dataset.load().images[sets == 1] < 1 / 32).float().mean()
    assert summary.histogram["0"].iloc[0] == pytest.approx(float(air), abs=1e-6)


def test_warnings(dataset: Dataset) -> None:
    warnings = "\n".join(inspect(dataset).warnings)
    assert "Pairs of patients who share a slice (give them one name): 1: " in warnings
    assert "some of 5 folds have none" in warnings
    assert "rule 'full'" in warnings
    for absent in ("left out", "Fewer than 3", "No slice is unlabelled", "of all slices", "flat"):
        assert absent not in warnings
    few = "\n".join(inspect(dataset.take([0, 1])).warnings)
    for present in ("Fewer than 3", "No slice is unlabelled", "100% of all slices"):
        assert present in few


def test_a_random_sample_of_a_large_dataset_is_read(dataset: Dataset) -> None:
    assert len(inspect(dataset, most=3).read) == 3
    assert inspect(dataset, most=3).read == inspect(dataset, most=3).read
    with pytest.raises(ValueError, match="most must be at least 1"):
        inspect(dataset, most=0)


def test_the_sheet_shows_the_given_slices(dataset: Dataset) -> None:
    figure = contact_sheet(dataset, [0, 3, 7], columns=2)
    assert [ax.get_title() for ax in figure.axes] == [*(dataset.names[i] for i in (0, 3, 7)), ""]


def test_files(dataset: Dataset, tmp_path: Path) -> None:
    text = write_inspection(dataset, tmp_path / "look", sheet=4)
    assert (tmp_path / "look" / "inspection.md").read_text() == text + "\n"
    assert "| folder | 8 | 4 |" in text
    assert (tmp_path / "look" / "contact_sheet.png").stat().st_size > 1000
    assert len(pd.read_csv(tmp_path / "look" / "histogram.csv")) == 32
