"""The manifest of any mix of scans lists each stored slice once, with correct entries."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import prepare
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.labels import ALL_LABELS, LABEL_RULES
from pyro_stitchnet.runtime.text import identity

SIZE = 32
RULES = ("", *LABEL_RULES)  # "": no mask

# Texts that tables often misread.
ODD = [
    "NA",
    "nan",
    "None",
    "True",
    "007",
    "7",
    "7.0",
    "1e3",
    "a,b",
    'a "b"',
    "'",
    "ä 胸部",
    "-",
    "#",
]
TEXTS = st.sampled_from(ODD) | st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0\r"), min_size=1, max_size=12
).map(identity).filter(bool)


@dataclass(frozen=True)
class Made:
    """A scan to write, and its expected entries.

    Attributes:
        name: of its file.
        patient: of the scan.
        study: of the patient.
        rule: labelling rule of its mask; "" without a mask.
        values: of the mask, in stripes.
        slices: number of slices of a volume; 0 for an image file.
    """

    name: str
    patient: str
    study: str
    rule: str
    values: tuple[int, ...]
    slices: int

    def grey(self) -> np.ndarray:
        """Return slices that no other scan has, (n, S, S), from black to white."""
        seed = list(self.name.encode())
        shape = (max(self.slices, 1), SIZE, SIZE)
        grey = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        grey[:, 0, :2] = 0, 255
        return grey

    def mask(self) -> np.ndarray:
        """Return the mask, its values in stripes."""
        stripes = np.resize(np.array(self.values, np.uint8), SIZE)
        return np.broadcast_to(stripes, self.grey().shape)

    def bits(self) -> np.ndarray:
        """Return the label sets of the mask."""
        if not self.rule:
            return np.full(self.grey().shape, ALL_LABELS)
        table = [sum(1 << k for k in LABEL_RULES[self.rule].get(v, ())) for v in range(4)]
        return np.array(table)[self.mask()]

    def slice_names(self) -> list[str]:
        """Return the names of its slices."""
        n = len(self.grey())
        return [self.name] if n == 1 else [f"{self.name}/{k:04d}" for k in range(n)]

    def write(self, folder: Path) -> None:
        """Write image and mask."""
        for part, stack in (("images", self.grey()), ("masks", self.mask())):
            if part == "masks" and not self.rule:
                continue
            (folder / part).mkdir(parents=True, exist_ok=True)
            if self.slices:
                np.save(folder / part / self.name, stack)
            else:
                Image.fromarray(stack[0]).save(folder / part / self.name)


@st.composite
def mixes(draw: st.DrawFn) -> list[Made]:
    mix = []
    for stem in draw(st.lists(TEXTS, min_size=1, max_size=6, unique=True)):
        rule, slices = draw(st.sampled_from(RULES)), draw(st.integers(0, 3))
        values = draw(st.lists(st.sampled_from(list(LABEL_RULES.get(rule, (0,)))), min_size=1))
        name = stem + (".npy" if slices else ".png")
        patient, study = draw(TEXTS), draw(TEXTS | st.just(""))
        mix.append(Made(name, patient, study, rule, tuple(values), slices))
    return mix


def prepared(mix: list[Made], root: Path) -> Dataset:
    """Write the scans, a folder for each rule, and prepare them all."""
    folders = []
    for rule in sorted({scan.rule for scan in mix}):
        here = root / f"by rule {rule}"
        scans = [scan for scan in mix if scan.rule == rule]
        for scan in scans:
            scan.write(here)
        rows = [(scan.name, scan.patient, scan.study) for scan in scans]
        table = pd.DataFrame(rows, columns=["file", "patient", "study"])
        table.to_csv(here / "index.csv", index=False)
        folders.append(f"{here}@{rule}" if rule else str(here))
    steps = Preprocessing(size=SIZE, lungs="none")
    return prepare(folders, root / "out", preprocessing=steps, progress=False)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(mix=mixes())
def test_each_slice_is_listed_once_with_correct_entries(
    tmp_path_factory: pytest.TempPathFactory, mix: list[Made]
) -> None:
    dataset = prepared(mix, tmp_path_factory.mktemp("mix"))
    table = dataset.manifest
    expected = {name: (scan, k) for scan in mix for k, name in enumerate(scan.slice_names())}
    assert sorted(dataset.names) == sorted(expected)
    for i, row in enumerate(table.itertuples()):
        scan, k = expected[row.slice]
        bits = scan.bits()[k]
        image, sets = dataset[i]
        assert np.array_equal((image * 255).round().numpy(), scan.grey()[k])
        assert np.array_equal(sets.numpy(), bits)
        kinds = set(bits.ravel().tolist())
        names = {"+".join(str(label) for label in range(4) if kind >> label & 1) for kind in kinds}
        assert set(row.label_sets.split()) == names
        assert row.labelled == (kinds != {ALL_LABELS})
        assert row.complete == (scan.rule == "full")  # whatever values this mask holds
        assert row.tells_infection == (scan.rule in ("full", "infection", "control"))
        assert (row.has_ggo, row.has_consolidation) == (4 in kinds, 8 in kinds)
        assert (row.patient, row.study) == (scan.patient, scan.study)
        assert (row.scan, row.index) == (scan.name, k)
        assert Path(row.file).name == scan.name

    places = sorted(zip(table["shard"], table["row"], strict=True))
    stored = [
        (int(shard.name), row)
        for shard in sorted((dataset.folder / "shards").iterdir())
        for row in range(zarr.open_array(shard / "slices", mode="r").shape[0])
    ]
    assert places == stored, "a stored slice is listed twice or not at all"


@settings(derandomize=True, deadline=None, max_examples=15)
@given(mix=mixes())
def test_a_manifest_survives_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, mix: list[Made]
) -> None:
    dataset = prepared(mix, tmp_path_factory.mktemp("mix"))
    path = dataset.folder / "manifest.csv"
    before = path.read_bytes()
    dataset.manifest.to_csv(path, index=False)
    assert path.read_bytes() == before
    pd.testing.assert_frame_equal(Dataset(dataset.folder).manifest, dataset.manifest)
