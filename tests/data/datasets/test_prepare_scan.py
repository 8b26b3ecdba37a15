"""One scan from its files to slices, their labels and their rows of the manifest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_stitchnet.data.datasets import prepare_scan as prepare_scan_module
from pyro_stitchnet.data.datasets.prepare_scan import Job, Unit, prepare_scan
from pyro_stitchnet.data.datasets.shards import finished_shards
from pyro_stitchnet.data.preprocessing.steps import Preprocessing
from pyro_stitchnet.data.scans.nifti import Encoding, write_nifti
from pyro_stitchnet.data.scans.stack import Spool
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


@pytest.mark.parametrize(
    ("rule", "rule_sets", "complete", "tells_infection"),
    [
        ("full", "0 1 2 3", True, True),
        ("infection", "0 1 2+3", False, True),
        ("lung", "0 1+2+3", False, False),
        ("control", "0+1", False, True),
    ],
)
def test_what_a_mask_tells_follows_from_its_rule(
    tmp_path: Path, rule: str, rule_sets: str, complete: bool, tells_infection: bool
) -> None:
    """This slice happens to hold background only."""
    (image, *_), (mask, *_) = save(tmp_path / "i", GREY), save(tmp_path / "m", LABELS * 0)
    job = Job("own", ScanFiles("s", "p", image, mask), LABEL_RULES[rule])
    ((row, _),) = prepare_scan(job, STEPS)
    assert row["rule_sets"] == rule_sets
    assert (row["complete"], row["tells_infection"]) == (complete, tells_infection)


def test_a_mask_that_leaves_out_pixels_is_complete_where_it_leaves_out_none(tmp_path: Path) -> None:
    rule = {**LABEL_RULES["full"], 4: frozenset(range(4))}
    masks = LABELS.copy()
    masks[1, 3, 4] = 4
    scan = ScanFiles("s", "p", save(tmp_path / "i", GREY), save(tmp_path / "m", masks))
    rows = [row for row, _ in prepare_scan(Job("own", scan, rule), STEPS)]
    assert [row["complete"] for row in rows] == [True, False, True]
    assert [row["tells_infection"] for row in rows] == [True, False, True]
    assert {row["rule_sets"] for row in rows} == {"0 0+1+2+3 1 2 3"}


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    images, masks = save(tmp_path / "images", GREY), save(tmp_path / "masks", LABELS[:, 1:])
    with pytest.raises(ValueError, match=r"masks/1\.png: the mask is \(1, 31, 32\), its scan"):
        prepared(ScanFiles("s", "p", images, (None, masks[1], None)))


def test_a_label_everywhere_holds_for_every_pixel(tmp_path: Path) -> None:
    images = save(tmp_path / "images", GREY)
    scan = ScanFiles("s", "p", images, everywhere=frozenset({BACKGROUND, HEALTHY}))
    rows, slices = prepared(scan)
    assert (slices[:, 1] == 3).all()
    assert {row["label_sets"] for row in rows} == {row["rule_sets"] for row in rows} == {"0+1"}
    assert all(row["labelled"] and not row["complete"] for row in rows)


def test_the_study_is_that_of_the_source_or_else_of_the_header(
    tmp_path: Path, write_series: Callable[..., Path]
) -> None:
    folder = write_series(tmp_path / "series", GREY.astype(np.uint16))
    for study, expected in (("", "1.2"), ("s7", "s7")):
        rows, _ = prepared(ScanFiles("s", "p", folder, study=study), tmp_path / "spool")
        assert {row["study"] for row in rows} == {expected}
        assert (rows[0]["slice_mm"], rows[0]["row_mm"], rows[0]["column_mm"]) == (2.5, 0.75, 0.5)


def test_a_known_fault_is_raised_and_nothing_is_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a broken link"):
        prepared(ScanFiles("s", "p", tmp_path / "none", fault="x: a broken link"))


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 2, 3), range(30), (0, 1, 2, 117)])
def test_a_label_map_is_no_scan(
    tmp_path: Path, write_volume: Callable[..., Path], values: range
) -> None:
    labels = np.random.default_rng(0).choice(np.array(values), (32, 32, 4)).astype(np.uint8)
    path = write_volume(tmp_path / "a.nii.gz", labels, np.eye(4))
    with pytest.raises(ValueError, match=r"a\.nii\.gz: a label map, not a scan: .* values 0, 1"):
        prepared(ScanFiles("s", "p", path))


def test_a_phantom_of_few_grey_values_is_a_scan(
    tmp_path: Path, write_volume: Callable[..., Path]
) -> None:
    """Tissues of one value each, in a lung window."""
    grey = np.array([42, 68, 195, 219, 255], np.uint8)[np.arange(32 * 32 * 4) % 5]
    path = write_volume(tmp_path / "a.nii.gz", grey.reshape(32, 32, 4), np.eye(4))
    rows, _ = prepared(ScanFiles("s", "p", path))
    assert len(rows) == 4


def test_a_map_of_predict_is_no_scan(tmp_path: Path) -> None:
    path = tmp_path / "lesion_probability.nii.gz"
    spool = Spool(tmp_path / "spool", (32, 32), np.uint8)
    spool.append(GREY[0])
    write_nifti(path, spool, Encoding(np.uint8), np.eye(4))
    with pytest.raises(ValueError, match=r"probability\.nii\.gz: a map that `stitchnet predict`"):
        prepared(ScanFiles("s", "p", path))


@pytest.mark.parametrize("error", [MemoryError(), KeyError("x"), RecursionError("deep")])
def test_any_error_costs_its_scan_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (tmp_path / "shards").mkdir()
    images = save(tmp_path / "i", GREY)
    jobs = [Job("own", ScanFiles(image.stem, "p", image), {}) for image in images]
    read_scan = prepare_scan_module.read_scan

    def fail(path: Path, *arguments: object, **options: object) -> object:
        if path == images[1]:
            raise error
        return read_scan(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare_scan_module, "read_scan", fail)
    with pytest.raises(ValueError, match=r"1\.png: cannot be prepared \("):
        Unit(tmp_path, 0, jobs, STEPS, skip_bad=False)()
    Unit(tmp_path, 0, jobs, STEPS, skip_bad=True)()
    rows, skipped = finished_shards(tmp_path)[0]
    assert rows["scan"].tolist() == ["0", "2"]
    assert skipped["scan"].tolist() == ["1"]
    assert type(error).__name__ in skipped["reason"][0]
