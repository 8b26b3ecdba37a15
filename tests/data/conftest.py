"""Folders of scans to prepare, and preparation without a lung field."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.phantoms.phantom import phantom_slices
from pyro_stitchnet.data.preprocessing.steps import Preprocessing


def _image_folder(root: Path, values: Sequence[int], names: Sequence[str] = ("a.png",)) -> Path:
    mask = np.repeat(np.array(values, np.uint8), 32 // len(values) + 1)[:32, None].repeat(32, 1)
    grey = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    for part, pixels in (("images", grey), ("masks", mask)):
        (root / part).mkdir(parents=True)
        for name in names:
            Image.fromarray(pixels).save(root / part / name)
    rows = [f"{name},patient {name}" for name in names]
    (root / "index.csv").write_text("\n".join(["file,patient", *rows]) + "\n")
    return root


def _volume_folder(root: Path, n: int) -> Path:
    rows = ["file,patient"]
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    population = [phantom_slices([i], 4, size=64) for i in range(min(n, 3))]
    for i in range(n):
        made = population[i % 3]
        np.save(root / "images" / f"{i:03}.npy", made.images.numpy() * 1500 - 1250)
        np.save(root / "masks" / f"{i:03}.npy", made.labels().numpy().astype(np.uint8))
        rows.append(f"{i:03}.npy,{i:03}")
    (root / "index.csv").write_text("\n".join(rows) + "\n")
    return root


def _prepared(*sources: object, out: Path, **options: object) -> Dataset:
    whole = Preprocessing(size=32, lungs="none")
    settings = {"preprocessing": whole, "progress": False, **options}
    return prepare([str(source) for source in sources], out, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def image_folder() -> Callable[..., Path]:
    """``(root, values, names)``: write slices whose masks hold the values, in stripes."""
    return _image_folder


@pytest.fixture(scope="session")
def volume_folder() -> Callable[..., Path]:
    """``(root, n)``: write n labelled volumes of phantoms in HU, four slices each."""
    return _volume_folder


@pytest.fixture(scope="session")
def prepared() -> Callable[..., Dataset]:
    """``(*sources, out, **options)``: prepare the sources' whole images, 32 x 32."""
    return _prepared
