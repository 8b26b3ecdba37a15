"""One scan from its files to slices, their labels and their rows of the manifest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.data.datasets.prepare_scan import Job, prepare_scan
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.sources import ScanFiles
from pyro_stitchnet.labels import ALL_LABELS, BACKGROUND, HEALTHY, LABEL_RULES

STEPS = Preprocessing(size=32, lungs="none")
GREY = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
GREY[:, 0, :2] = 0, 255
LABELS = np.random.default_rng(1).integers(0, 4, (3, 32, 32)).astype(np.uint8)


def save(folder: Path, values: np.ndarray) -> tuple[Path, ...]:
    folder.mkdir()
    paths = tuple(folder / f"{k}.png" for k in range(len(values)))
    for path, one in zip(paths, values, strict=True):
        Image.fromarray(one).save(path)
    return paths


def prepared(scan: ScanFiles, spool: Path | None = None) -> tuple[list[dict], np.ndarray]:
    job = Job("own", scan, LABEL_RULES["full"])
    rows, slices = zip(*prepare_scan(job, STEPS, spool), strict=True)
    return list(rows), np.stack(slices)


@pytest.mark.parametrize("streamed", [False, True])
def test_image_files_have_a_mask_each_or_are_unlabelled(tmp_path: Path, streamed: bool) -> None:
    images, masks = save(tmp_path / "images", GREY), save(tmp_path / "masks", LABELS)
    scan = ScanFiles("s", "p", images, (masks[0], None, masks[2]))
    rows, slices = prepared(scan, tmp_path / "spool" if streamed else None)
    assert np.array_equal(slices[:, 0], GREY)
    assert np.array_equal(slices[[0, 2], 1], 1 << LABELS[[0, 2]])
    assert (slices[1, 1] == ALL_LABELS).all()
    assert [row["slice"] for row in rows] == ["s/0000", "s/0001", "s/0002"]
    assert [row["labelled"] for row in rows] == [True, False, True]
    assert [row["complete"] for row in rows] == [True, False, True]


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    images, masks = save(tmp_path / "images", GREY), save(tmp_path / "masks", LABELS[:, 1:])
    with pytest.raises(ValueError, match=r"masks/1\.png: the mask is \(1, 31, 32\), its scan"):
        prepared(ScanFiles("s", "p", images, (None, masks[1], None)))


def test_a_label_everywhere_holds_for_every_pixel(tmp_path: Path) -> None:
    images = save(tmp_path / "images", GREY)
    scan = ScanFiles("s", "p", images, everywhere=frozenset({BACKGROUND, HEALTHY}))
    rows, slices = prepared(scan)
    assert (slices[:, 1] == 3).all()
    assert {row["label_sets"] for row in rows} == {"0+1"}
    assert all(row["labelled"] and not row["complete"] for row in rows)


def test_the_study_is_that_of_the_source_or_else_of_the_header(
    tmp_path: Path, write_series: Callable[..., Path]
) -> None:
    folder = write_series(tmp_path / "series", GREY.astype(np.uint16))
    for study, expected in (("", "1.2"), ("s7", "s7")):
        rows, _ = prepared(ScanFiles("s", "p", folder, study=study), tmp_path / "spool")
        assert {row["study"] for row in rows} == {expected}
        assert (rows[0]["slice_mm"], rows[0]["row_mm"], rows[0]["column_mm"]) == (2.5, 0.75, 0.5)
