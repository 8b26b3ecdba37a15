"""Datasets of phantoms, a small benchmark and the results of its first fold."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.partition import partition
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import Slices, write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.evaluation.benchmark import runner
from pyro_stitchnet.evaluation.benchmark.results import CHECKSUMS, TABLE
from pyro_stitchnet.evaluation.benchmark.spec import Budget, Entry, Spec
from pyro_stitchnet.runtime.checksums import sha256, write_json

SIZE = 64


def prepared(sources: Sequence[str], out: Path) -> None:
    prepare(sources, out, preprocessing=Preprocessing(size=SIZE, lungs="none"), progress=False)


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the datasets ``data`` and ``other_hospital``."""
    folder = tmp_path_factory.mktemp("datasets")
    write_folder(phantom_slices(range(10), 2, size=SIZE), folder / "labelled")
    write_folder(phantom_slices(range(10, 14), 2, size=SIZE), folder / "unlabelled", masks=False)
    prepared([str(folder / "labelled"), str(folder / "unlabelled")], folder / "data")
    write_folder(phantom_slices(range(20, 22), 2, size=SIZE), folder / "partial")
    for path in (folder / "partial" / "masks").glob("*.png"):
        mask = np.array(Image.open(path))
        Image.fromarray(np.minimum(mask, 2)).save(path)
    prepared([f"{folder / 'partial'}@infection"], folder / "other_hospital")
    return folder


@pytest.fixture(scope="session")
def small(datasets: Path) -> Callable[..., Spec]:
    """``(**fields)``: a benchmark of two steps, with other fields."""
    spec = Spec(
        data=datasets / "data",
        other_hospital=datasets / "other_hospital",
        entries={"unet": Entry("unet"), "tiny": Entry("stitchnet-tiny")},
        budgets=[Budget(4, folds=5)],
        steps=2,
        labelled_per_batch=2,
        unlabelled_per_batch=1,
        validate_every=1,
    )
    return lambda **fields: replace(spec, **fields)


@pytest.fixture
def slices(datasets: Path) -> dict[str, Slices]:
    """The parts of a split with four labelled slices."""
    _, parts = partition(Dataset(datasets / "data"), fold=0, folds=5, seed=0, label_budget=4)
    return {part: chosen.load() for part, chosen in parts.items()}


@pytest.fixture(scope="session")
def write_rows() -> Callable[[Path, pd.DataFrame], None]:
    """``(folder, rows)``: write a table with its checksum."""

    def write(folder: Path, rows: pd.DataFrame) -> None:
        rows.to_csv(folder / TABLE, index=False)
        write_json(folder / CHECKSUMS, {TABLE: [sha256(folder / TABLE)]})

    return write


@pytest.fixture(scope="session")
def first_fold(small: Callable[..., Spec], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of both entries on the first fold."""
    out = tmp_path_factory.mktemp("results")
    cells = list(runner.cells_of(small()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "cells_of", lambda spec: cells[:2])
        runner.run(small(), out)
    return out
