"""Scans that cannot be prepared are named with a remedy, or skipped."""

import os
import re
import signal
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pyro_stitchnet.data.datasets.dataset import Dataset
from pyro_stitchnet.data.datasets.prepare import find_jobs
from pyro_stitchnet.data.preprocessing.steps import PreparedSlice, Preprocessing
from pyro_stitchnet.data.scans.stack import Stack

NO_LUNG = np.full((2, 64, 64), -1000.0)
NO_LUNG[:, 20:40, 20:40] = 40


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (NO_LUNG, "no slice of .* has a lung field.*--lungs none"),
        (np.full((2, 64, 64), -700.0), r"all its voxels are -700\.0; drop it"),
        (np.where(NO_LUNG == 40, np.nan, NO_LUNG), "not a number; .* by the grey value of air"),
        (np.zeros((0, 64, 64)), "three axes, all longer than 0"),
        (np.array(["text"]), "unreadable .*; save an array of numbers"),
    ],
    ids=["no lung", "constant", "NaN", "empty", "text"],
)
def test_a_scan_that_cannot_be_used_is_named_with_a_remedy_or_skipped(
    volume_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    bad: np.ndarray,
    words: str,
) -> None:
    folder = volume_folder(tmp_path / "in", 2)
    path = folder / "images" / "001.npy"
    np.save(path, bad)
    (folder / "masks" / "001.npy").unlink()
    steps = Preprocessing(size=32)
    with pytest.raises(ValueError, match=rf"^{path}: .*{words}"):
        prepared(folder, out=tmp_path / "strict", preprocessing=steps)
    dataset = prepared(folder, out=tmp_path / "lenient", preprocessing=steps, skip_bad=True)
    assert set(dataset.manifest["scan"]) == {"000.npy"}
    skipped = pd.read_csv(tmp_path / "lenient" / "skipped.csv")
    assert skipped["scan"].tolist() == ["001.npy"]
    assert skipped["reason"].str.fullmatch(rf"{path}: .*{words}.*").all()


def test_a_mask_with_an_unknown_value_is_named(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = image_folder(tmp_path / "in", [0, 1, 7])
    with pytest.raises(ValueError, match=r"masks/a\.png: the mask holds \[7\].*FOLDER@RULE"):
        prepared(folder, out=tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_bad_images_stop_or_are_listed(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = image_folder(tmp_path / "in", [0, 1], names=("a.png", "b.png", "c.png"))
    good = (folder / "images" / "b.png").read_bytes()
    (folder / "images" / "b.png").write_bytes(good[:40])
    with pytest.raises(ValueError, match=r"b\.png"):
        prepared(folder, out=tmp_path / "strict")
    dataset = prepared(folder, out=tmp_path / "lenient", skip_bad=True)
    assert dataset.names == ["a.png", "c.png"]
    skipped = pd.read_csv(tmp_path / "lenient" / "skipped.csv")
    assert skipped["scan"].tolist() == ["b.png"]
    assert "b.png" in skipped["reason"][0]
    # With the file restored, the strict preparation resumes.
    (folder / "images" / "b.png").write_bytes(good)
    assert prepared(folder, out=tmp_path / "strict").names == ["a.png", "b.png", "c.png"]


def test_a_strict_preparation_can_resume_with_skip_bad(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = image_folder(tmp_path / "in", [0, 1], names=("a.png", "b.png"))
    (folder / "images" / "b.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"b\.png"):
        prepared(folder, out=tmp_path / "out")
    assert prepared(folder, out=tmp_path / "out", skip_bad=True).names == ["a.png"]


def test_a_dataset_without_slices_is_refused(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = image_folder(tmp_path / "in", [7])
    with pytest.raises(ValueError, match=r"no slice is left, see .*skipped\.csv"):
        prepared(folder, out=tmp_path / "out", skip_bad=True)


def test_a_dataset_is_not_written_among_other_files(
    volume_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = volume_folder(tmp_path / "in", 1)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(FileExistsError, match=r"in: holds other files .*new folder as --out"):
        prepared(folder, out=folder)
    assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == before


def test_two_scans_of_the_same_name_are_refused(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    one, other = (image_folder(tmp_path / name, [0, 1]) for name in ("one", "other"))
    with pytest.raises(ValueError, match=r"other/images/a\.png: .*same name 'a\.png' as .*one"):
        find_jobs([str(one), str(other)])
    with pytest.raises(ValueError, match=r"one/images/a\.png: is given twice"):
        find_jobs([str(one), f"{one}@full"])


def test_two_files_that_differ_in_their_endings_cost_one_of_them(
    volume_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    array = np.load(volume_folder(tmp_path / "in", 1) / "images" / "000.npy")
    for name in ("a.nii", "a.nii.gz", "b.nii"):
        (tmp_path / "scans").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array.T, np.eye(4)), tmp_path / "scans" / name)
    with pytest.raises(ValueError, match=r"a\.nii\.gz: .* same name 'a' as .*a\.nii; rename one"):
        prepared(tmp_path / "scans", out=tmp_path / "strict")
    dataset = prepared(tmp_path / "scans", out=tmp_path / "out", skip_bad=True)
    assert sorted(set(dataset.manifest["scan"])) == ["a", "b"]


def test_two_slices_of_the_same_name_are_refused(
    prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    """Slice 3 of the scan ct_lesion_seg/12 and the scan ct_lesion_seg/12/0003."""
    for part, ending, white in (("image", "jpg", 255), ("mask", "png", 1)):
        place = tmp_path / "ccii" / "ct_lesion_seg" / part / "12"
        place.mkdir(parents=True)
        Image.fromarray(np.eye(32, dtype=np.uint8) * white).save(place / f"0003.{ending}")
    (tmp_path / "plain" / "ct_lesion_seg").mkdir(parents=True)
    voxels = np.arange(32 * 32 * 4, dtype=np.int16).reshape(32, 32, 4) - 1000
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "plain" / "ct_lesion_seg" / "12.nii.gz")
    with pytest.raises(ValueError, match=r"out: two slices are called ct_lesion_seg/12/0003; ren"):
        prepared(tmp_path / "ccii", f"{tmp_path / 'plain'}@plain", out=tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_call_without_folder_or_scan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name at least one"):
        find_jobs([])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"no scan in the layout 'plain', which is <patient>\.nii"):
        find_jobs([f"{tmp_path}@plain"])


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x: no such folder .*infection"):
        find_jobs([str(tmp_path / "x")])
    with pytest.raises(FileNotFoundError, match="x@nonsense: no such folder"):
        find_jobs([str(tmp_path / "x@nonsense")])
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(ValueError, match=r"scan\.nii\.gz: is not a folder"):
        find_jobs([str(tmp_path / "scan.nii.gz")])


@pytest.mark.parametrize("name", ["full", "folder"])
def test_a_folder_may_have_the_name_of_a_rule_or_source(
    image_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    image_folder(tmp_path / name, [0, 1])
    monkeypatch.chdir(tmp_path)
    assert [job.file.parent.name for job in find_jobs([name])] == ["images"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": -3}, "workers must be at least 0, got -3"),
        ({"time_limit": 0}, "time_limit must be a positive number of seconds, got 0"),
        ({"time_limit": float("nan")}, "time_limit must be a positive number of seconds, got nan"),
    ],
)
def test_options_out_of_range_are_refused(
    image_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    options: dict,
    words: str,
) -> None:
    folder = image_folder(tmp_path / "in", [0, 1])
    with pytest.raises(ValueError, match=words):
        prepared(folder, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# --- Scans that end or hang their process ---------------------------------------------------------


@dataclass(frozen=True)
class Harmful(Preprocessing):
    """Preprocessing that ends or hangs its process at every scan whose file is called so.

    A file called "recovers" hangs once: afterwards there is a file called ``harm``.
    """

    harm: str = ""

    def slices(self, stack: Stack, *args: Any, **kwargs: Any) -> Iterator[PreparedSlice]:
        """Do harm, or prepare slices."""
        if stack.source.stem == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        if stack.source.stem == "hangs":
            time.sleep(600)
        if stack.source.stem == "recovers" and not Path(self.harm).exists():
            Path(self.harm).touch()
            time.sleep(600)
        return super().slices(stack, *args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_scans_that_end_or_hang_their_process_cost_themselves_only(
    image_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    workers: int,
) -> None:
    """All share a shard."""
    names = ("a.png", "b.png", "dies.png", "c.png", "hangs.png")
    folder = image_folder(tmp_path / "in", [0, 1], names=names)
    steps = Harmful(size=32, lungs="none")
    options = {"preprocessing": steps, "workers": workers, "time_limit": 12.0}
    dataset = prepared(folder, out=tmp_path / "out", skip_bad=True, **options)
    assert dataset.names == ["a.png", "b.png", "c.png"]
    reasons = dict(zip(dataset.skipped["scan"], dataset.skipped["reason"], strict=True))
    assert set(reasons) == {"dies.png", "hangs.png"}
    assert re.search(r"dies\.png: its worker process died \(SIGSEGV", reasons["dies.png"])
    assert re.search(r"hangs\.png: took longer than 12 s; .*--time-limit", reasons["hangs.png"])
    folder = image_folder(tmp_path / "strict_in", [0, 1], names=names[:-1])  # none that hangs again
    with pytest.raises(ValueError, match=r"^\S+dies\.png: its worker process died \(SIGSEGV"):
        prepared(folder, out=tmp_path / "strict", **options)


@pytest.mark.slow
def test_a_unit_that_is_lost_but_recovers_costs_no_other(
    image_folder: Callable[..., Path],
    prepared: Callable[..., Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as one that ran out of time because the machine was busy."""
    monkeypatch.setattr("pyro_stitchnet.data.datasets.prepare.IMAGES_PER_SHARD", 2)
    names = ("a.png", "recovers.png", "x.png", "y.png", "z.png")
    folder = image_folder(tmp_path / "in", [0, 1], names=names)
    steps = Harmful(size=32, lungs="none", harm=str(tmp_path / "harm"))
    options = {"preprocessing": steps, "workers": 1, "time_limit": 8.0}
    dataset = prepared(folder, out=tmp_path / "out", **options)
    assert Path(steps.harm).exists()
    assert dataset.names == list(names)


def test_faults_known_before_reading_are_raised_at_once_or_listed(
    image_folder: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = image_folder(tmp_path / "in", [0, 1], names=("a.png", "b.png"))
    with (folder / "index.csv").open("a") as file:
        file.write("../../secret.png,p\n")
    (folder / "images" / "b.png").unlink()
    with pytest.raises(
        ValueError, match=r"index\.csv: \.\./\.\./secret\.png lies outside .*images"
    ):
        prepared(folder, out=tmp_path / "strict")
    assert not (tmp_path / "strict").exists()
    dataset = prepared(folder, out=tmp_path / "lenient", skip_bad=True)
    assert dataset.names == ["a.png"]
    assert dataset.skipped["scan"].tolist() == ["../../secret.png", "b.png"]
    assert "b.png: missing, though index.csv lists it" in dataset.skipped["reason"][1]


def test_one_name_in_two_forms_of_unicode_is_one_patient_with_two_scans(
    write_volume: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    for name in ("Müller", unicodedata.normalize("NFD", "Müller")):
        place = tmp_path / "in" / name
        place.mkdir(parents=True)
        hu = np.random.default_rng(len(place.name)).integers(-1000, 400, (32, 32, 2))
        write_volume(place / "ct.nii.gz", hu.astype(np.int16), np.eye(4))
    dataset = prepared(tmp_path / "in", out=tmp_path / "out")
    assert set(dataset.patients) == {"Müller"}
    assert set(dataset.manifest["scan"]) == {"Müller/ct", "Müller/ct~2"}


def test_a_name_that_is_no_utf8_is_written_escaped(
    write_volume: Callable[..., Path], prepared: Callable[..., Dataset], tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    hu = np.random.default_rng(0).integers(-1000, 400, (32, 32, 2)).astype(np.int16)
    write_volume(folder / "a.nii.gz", hu, np.eye(4))
    os.rename(folder / "a.nii.gz", os.fsencode(folder) + b"/M\xfcller.nii.gz")
    with open(os.fsencode(folder) + b"/bad\xff.nii.gz", "wb") as file:
        file.write(b"none")
    dataset = prepared(folder, out=tmp_path / "out", skip_bad=True)
    assert set(dataset.patients) == {"M\\xfcller"}
    assert dataset.manifest["file"][0].endswith("M\\xfcller.nii.gz")
    assert dataset.skipped["scan"].tolist() == ["bad\\xff"]
    assert "bad\\xff.nii.gz: " in dataset.skipped["reason"][0]
