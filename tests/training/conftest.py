"""Phantom slices and prepared datasets, shared by tests that do not change them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.datasets.slices import Slices, write_folder
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing


@pytest.fixture(scope="session")
def slices() -> Slices:
    """Two labelled slices of each of three patients, 64 x 64."""
    return phantom_slices([0, 1, 2], 2, size=64)


def _prepared(folder: Path, *sources: str) -> Path:
    steps = Preprocessing(size=64, lungs="none")
    paths = [str(folder / source) for source in sources]
    return prepare(paths, folder / "dataset", preprocessing=steps, progress=False).folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of eight patients with labels and six without."""
    folder = tmp_path_factory.mktemp("training")
    write_folder(phantom_slices(range(8), 2, size=64), folder / "labelled")
    write_folder(phantom_slices(range(8, 14), 1, size=64), folder / "rest", masks=False)
    return _prepared(folder, "labelled", "rest")


@pytest.fixture(scope="session")
def unlabelled_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of five patients without labels."""
    folder = tmp_path_factory.mktemp("unlabelled")
    write_folder(phantom_slices(range(5), 1, size=64), folder / "rest", masks=False)
    return _prepared(folder, "rest")


@pytest.fixture(scope="session")
def same_state() -> Callable[[nn.Module, nn.Module], bool]:
    """``(one, other)``: whether all weights and buffers are equal, bit for bit."""

    def same(one: nn.Module, other: nn.Module) -> bool:
        pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
        return all(a == b and x.equal(y) for (a, x), (b, y) in pairs)

    return same
